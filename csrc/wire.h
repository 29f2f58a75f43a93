/* SPDX-License-Identifier: MIT */
/* wire.h - the headers as they lie on the wire, for offsetof and for memcpy.
 * It reads nothing itself; no pointer is ever cast to these types.
 */
#ifndef PUNCHD_WIRE_H
#define PUNCHD_WIRE_H

#include <stdint.h>

#define WIRE_FRAGMENT_OFFSET 0x1fff     /* in fragment_be, host order */
#define WIRE_MORE_FRAGMENTS 0x2000
#define WIRE_DONT_FRAGMENT 0x4000

struct wire_ipv4 {
	uint8_t version_ihl;    /* 4 bits each; ihl in units of 4 bytes */
	uint8_t tos;
	uint16_t total_len_be;
	uint16_t id_be;
	uint16_t fragment_be;
	uint8_t ttl;
	uint8_t protocol;
	uint16_t checksum_be;
	uint8_t src[4];
	uint8_t dst[4];
};

struct wire_tcp {
	uint16_t src_port_be;
	uint16_t dst_port_be;
	uint32_t seq_be;
	uint32_t ack_be;
	uint8_t data_offset;    /* upper 4 bits, in units of 4 bytes */
	uint8_t flags;
	uint16_t window_be;
	uint16_t checksum_be;
	uint16_t urgent_be;
};

struct wire_udp {
	uint16_t src_port_be;
	uint16_t dst_port_be;
	uint16_t length_be;
	uint16_t checksum_be;
};

struct wire_icmp {
	uint8_t type;
	uint8_t code;
	uint16_t checksum_be;
	uint32_t rest_be;
};

_Static_assert(sizeof(struct wire_ipv4) == 20, "RFC 791 3.1");
_Static_assert(sizeof(struct wire_tcp) == 20, "RFC 9293 3.1");
_Static_assert(sizeof(struct wire_udp) == 8, "RFC 768");
_Static_assert(sizeof(struct wire_icmp) == 8, "RFC 792");

#endif

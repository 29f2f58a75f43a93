// SPDX-License-Identifier: MIT
/* frame.c - a frame of the ring becomes a record, if its flow is known.
 * It makes no system calls; taking a frame and giving it back is capture.c's.
 */
#include "frame.h"

#include <linux/if_packet.h>
#include <netinet/in.h>
#include <string.h>

_Static_assert(sizeof(struct tpacket2_hdr) % TPACKET_ALIGNMENT == 0,
	       "the link address follows the header at once");

#define ICMP_EXCEEDED 11        /* RFC 792 */

/* A captured packet, inside the slot. */
struct packet {
	const uint8_t *bytes;
	size_t len;
	int outgoing;
};

/* A NAT of the peer's that changes ports shows as one from another port. */
static uint64_t token_of_segment(const struct punchd_segment *seg, int outgoing,
				 struct punchd_flows *flows,
				 uint16_t *other_port)
{
	uint64_t token;
	struct punchd_flow flow = {
		.family = seg->family,
		.protocol = IPPROTO_TCP,
	};

	memcpy(flow.local, outgoing ? seg->src : seg->dst, sizeof(flow.local));
	memcpy(flow.remote, outgoing ? seg->dst : seg->src,
	       sizeof(flow.remote));
	flow.local_port = outgoing ? seg->src_port : seg->dst_port;
	flow.remote_port = outgoing ? seg->dst_port : seg->src_port;
	token = punchd_flows_get(flows, &flow);
	if (outgoing && seg->flags & PUNCHD_SYN &&
	    punchd_flows_repeats(flows, &flow, seg))
		return 0;
	if (token || outgoing || seg->src_port == 0)
		return token;
	flow.any_port = 1;
	*other_port = seg->src_port;
	return punchd_flows_get(flows, &flow);
}

/* The parsers refuse each other's protocol, so the order does not matter. */
static int packet_read(const struct packet *packet, struct punchd_flows *flows,
		       struct punchd_record *out)
{
	int len = punchd_segment_parse(packet->bytes, packet->len,
				       &out->segment);

	if (len >= 0) {
		out->kind = PUNCHD_RECORD_SEGMENT;
		out->bytes_len = (uint16_t)len;
		out->token = token_of_segment(&out->segment, packet->outgoing,
					      flows, &out->other_port);
		return out->token != 0;
	}
	if (punchd_quote_parse(packet->bytes, packet->len, &out->quote) < 0)
		return 0;
	if (out->quote.type == ICMP_EXCEEDED) {
		punchd_flows_note(flows, &out->quote);
		return 0;
	}
	out->kind = PUNCHD_RECORD_ICMP;
	out->bytes_len = (uint16_t)(packet->len < PUNCHD_SEGMENT_MAX ?
				    packet->len : PUNCHD_SEGMENT_MAX);
	out->token = punchd_flows_get(flows, &out->quote.flow);
	return out->token != 0;
}

int punchd_frame_read(const uint8_t *slot, size_t slot_len,
		      struct punchd_flows *flows,
		      struct punchd_record *out)
{
	const size_t link_at = sizeof(struct tpacket2_hdr);
	struct punchd_record got = { 0 };
	struct sockaddr_ll link;
	struct tpacket2_hdr hdr;
	struct packet packet;

	if (slot_len < link_at + sizeof(link))
		return 0;
	memcpy(&hdr, slot, sizeof(hdr));
	memcpy(&link, slot + link_at, sizeof(link));
	if (hdr.tp_net > slot_len || hdr.tp_snaplen > slot_len - hdr.tp_net)
		return 0;
	packet.bytes = slot + hdr.tp_net;
	packet.len = hdr.tp_snaplen;
	packet.outgoing = link.sll_pkttype == PACKET_OUTGOING;
	if (!packet_read(&packet, flows, &got))
		return 0;
	got.time_ns = (uint64_t)hdr.tp_sec * 1000000000U + hdr.tp_nsec;
	got.outgoing = (uint8_t)packet.outgoing;
	memcpy(got.bytes, packet.bytes, got.bytes_len);
	*out = got;
	return 1;
}

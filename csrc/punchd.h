/* SPDX-License-Identifier: MIT */
/* punchd.h - what C and Python agree on: constants, plain structs; calls.h too.
 * It holds no code; cffi's cdef is the slices between the marks, verbatim.
 */
#ifndef PUNCHD_H
#define PUNCHD_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

#define PUNCHD_FIN 0x01
#define PUNCHD_SYN 0x02
#define PUNCHD_RST 0x04
#define PUNCHD_PSH 0x08
#define PUNCHD_ACK 0x10

/*
 * Window fields by which two punchds know each other's bare ACKs. Each such
 * segment has sequence SND.UNA - 1, so a kernel that owns the connection
 * answers it like a keepalive and lets nothing of it into the stream.
 */
#define PUNCHD_WINDOW_FIRE 20550
#define PUNCHD_WINDOW_ANSWER 20545
#define PUNCHD_WINDOW_COMMIT 20547
#define PUNCHD_WINDOW_PRIME 20560       /* dies on its way to the other */
#define PUNCHD_NO_WINDOW_SCALE 255

#define PUNCHD_SEGMENT_MAX 120  /* IP and TCP header, no payload */
#define PUNCHD_FILTER_MAX 64    /* instructions, room to spare */
#define PUNCHD_TAG_MIN 8
#define PUNCHD_TAG_MAX 16
#define PUNCHD_RECORD_SEGMENT 1
#define PUNCHD_RECORD_ICMP 2

enum punchd_status {
	PUNCHD_OK = 0,
	PUNCHD_TRUNCATED = -1001,       /* ends before its header says */
	PUNCHD_MALFORMED = -1002,       /* a field contradicts another one */
	PUNCHD_UNSUPPORTED = -1003,     /* well formed, but not ours to read */
	PUNCHD_NO_ROOM = -1004,         /* the output buffer or table is full */
	PUNCHD_ABSENT = -1005,          /* looked up, not there */
};

/* A connection's 4-tuple as this host sees it; ports in host order. */
struct punchd_flow {
	uint8_t local[16];      /* network order; IPv4 in the first 4 bytes */
	uint8_t remote[16];
	uint16_t local_port;
	uint16_t remote_port;
	uint8_t family;         /* 4 or 6 */
	uint8_t protocol;       /* IPPROTO_TCP or IPPROTO_UDP */
	uint16_t any_port;      /* 1: remote_port does not count */
};

struct punchd_options {
	uint32_t ts_val;
	uint32_t ts_ecr;
	uint16_t mss;           /* 0: absent */
	uint8_t window_scale;   /* PUNCHD_NO_WINDOW_SCALE: absent */
	uint8_t sack_permitted;
	uint8_t timestamps;     /* 1: ts_val and ts_ecr are there */
	uint8_t reserved[3];
};

struct punchd_segment {
	uint8_t src[16];
	uint8_t dst[16];
	uint32_t seq;
	uint32_t ack;
	uint16_t src_port;
	uint16_t dst_port;
	uint16_t window;
	uint16_t payload_len;   /* parsed only; crafted segments carry none */
	uint8_t family;
	uint8_t ttl;
	uint8_t flags;
	uint8_t reserved;
	struct punchd_options options;
};

/* How one segment of a spray differs from the others; ports in host order. */
struct punchd_shot {
	uint32_t seq;
	uint32_t ack;
	uint16_t src_port;
	uint16_t dst_port;
};

/* An ICMP error and the packet it quotes, as its receiver sees it. */
struct punchd_quote {
	uint8_t sender[16];
	struct punchd_flow flow;        /* local is the quoted source */
	uint8_t type;
	uint8_t code;
	uint8_t family;
	uint8_t ttl;                    /* of the error itself */
};

/* That a packet of a flow died on its way; kept until somebody asks. */
struct punchd_note {
	uint8_t sender[16];
	uint8_t type;                   /* of the ICMP error; 0: none came */
	uint8_t code;
	uint8_t family;
	uint8_t reserved[5];
};

/* What the ring tells Python of one frame of a known flow. */
struct punchd_record {
	uint64_t token;                 /* as given to punchd_flows_put */
	uint64_t time_ns;               /* CLOCK_REALTIME, by the kernel */
	uint8_t kind;                   /* PUNCHD_RECORD_* */
	uint8_t outgoing;
	uint16_t bytes_len;
	uint16_t other_port;            /* it came from there; 0: as known */
	struct punchd_segment segment;  /* kind SEGMENT */
	struct punchd_quote quote;      /* kind ICMP */
	uint8_t bytes[PUNCHD_SEGMENT_MAX];      /* headers as captured */
};

struct punchd_repair {
	struct punchd_flow flow;
	uint32_t snd_nxt;       /* the first sequence number we will send */
	uint32_t rcv_nxt;
	uint32_t snd_wnd;       /* bytes the peer is assumed to accept */
	uint16_t mss;
	uint8_t window_scale;   /* of both sides */
	uint8_t sack_permitted;
	uint8_t ttl;            /* 0: the kernel's default */
	uint8_t probe;          /* 1: leave repair mode with a window probe */
	uint8_t reserved[2];
};

struct punchd_insn {            /* struct sock_filter, in fixed widths */
	uint16_t code;
	uint8_t jt;
	uint8_t jf;
	uint32_t k;
};

struct punchd_flows;
struct punchd_ring;

/* cffi: end */

#include "calls.h"

#endif

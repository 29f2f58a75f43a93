/* SPDX-License-Identifier: MIT */
/* punchd.h - what C and Python agree on: constants, plain structs, prototypes.
 * It holds no code; the slice between the cffi marks is given verbatim to cffi's cdef.
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

#define PUNCHD_NO_WINDOW_SCALE 255

#define PUNCHD_SEGMENT_MAX 120  /* IPv4 or IPv6 header, TCP header, no payload */
#define PUNCHD_FILTER_MAX 64    /* instructions of the longest filter, or more */
#define PUNCHD_TAG_MIN 8
#define PUNCHD_TAG_MAX 16
#define PUNCHD_RECORD_SEGMENT 1
#define PUNCHD_RECORD_ICMP 2

/* What the pure files answer instead of a count. */
enum punchd_status {
	PUNCHD_OK = 0,
	PUNCHD_TRUNCATED = -1001,       /* the input ends before its header says */
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
	uint8_t reserved[2];    /* zero */
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

/* An ICMP error and the packet it quotes, as seen by the host it was sent to. */
struct punchd_quote {
	uint8_t sender[16];
	struct punchd_flow flow;        /* local is the quoted source */
	uint8_t type;
	uint8_t code;
	uint8_t family;
	uint8_t ttl;                    /* of the error itself */
};

/* What the ring tells Python of one frame of a known flow. */
struct punchd_record {
	uint64_t token;                 /* as given to punchd_flows_put */
	uint64_t time_ns;               /* CLOCK_REALTIME, by the kernel */
	uint8_t kind;                   /* PUNCHD_RECORD_* */
	uint8_t outgoing;
	uint16_t bytes_len;
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

/* segment.c */
int punchd_segment_build(const struct punchd_segment *seg,
			 uint8_t *out, size_t out_len);
int punchd_segment_build_many(const struct punchd_segment *segs, size_t n,
			      uint8_t *out, size_t out_len, size_t stride,
			      uint16_t *lens);
int punchd_segment_parse(const uint8_t *in, size_t in_len,
			 struct punchd_segment *seg);
int punchd_segment_retouch(uint8_t *bytes, size_t bytes_len, uint8_t ttl);
int punchd_quote_parse(const uint8_t *in, size_t in_len,
		       struct punchd_quote *quote);

/* filter.c */
int punchd_filter_ring(uint16_t port_lo, uint16_t port_hi, uint8_t hole_ttl,
		       struct punchd_insn *out, size_t out_len);
int punchd_filter_peer(const uint8_t *address, uint8_t family,
		       struct punchd_insn *out, size_t out_len);
int punchd_filter_tagged(const uint8_t *tag, size_t tag_len,
			 struct punchd_insn *out, size_t out_len);

/* flows.c */
struct punchd_flows *punchd_flows_new(uint32_t capacity);
void punchd_flows_free(struct punchd_flows *flows);
int punchd_flows_put(struct punchd_flows *flows,
		     const struct punchd_flow *flow, uint64_t token);
int punchd_flows_drop(struct punchd_flows *flows,
		      const struct punchd_flow *flow);
uint64_t punchd_flows_get(const struct punchd_flows *flows,
			  const struct punchd_flow *flow);
uint64_t punchd_flows_get_quoted(const struct punchd_flows *flows,
				 const uint8_t *packet, size_t packet_len);
uint32_t punchd_flows_count(const struct punchd_flows *flows);

/* capture.c */
int punchd_ring_open(uint16_t port_lo, uint16_t port_hi, uint8_t hole_ttl,
		     uint32_t frames, struct punchd_ring **out);
void punchd_ring_close(struct punchd_ring *ring);
int punchd_ring_fd(const struct punchd_ring *ring);
int punchd_ring_drain(struct punchd_ring *ring,
		      const struct punchd_flows *flows,
		      struct punchd_record *out, size_t out_len);
int punchd_ring_drops(struct punchd_ring *ring, uint64_t *drops);
int punchd_ring_detach(struct punchd_ring *ring);

/* send.c */
int punchd_raw_open(void);
int punchd_send_burst(int fd, const uint8_t *bytes, size_t bytes_len,
		      size_t stride, const uint16_t *lens, size_t n);
int punchd_send_segments(int fd, const struct punchd_segment *segs, size_t n);
int punchd_filter_attach(int fd, const struct punchd_insn *insns, size_t n);
int punchd_filter_detach(int fd);

/* repair.c */
int punchd_repair_open(const struct punchd_repair *repair);
int punchd_repair_drop(int fd);
int punchd_repair_probe(int fd);

/* cffi: end */

#endif

/* SPDX-License-Identifier: MIT */
/* calls.h - what Python may call, file by file; punchd.h has what it speaks of.
 * It is included by punchd.h alone, and holds no code either.
 */
#ifndef PUNCHD_CALLS_H
#define PUNCHD_CALLS_H

#include "punchd.h"

/* cffi: begin */

/*
 * Pure files answer a count or PUNCHD_OK, else a punchd_status; files with
 * system calls a negative errno. Outputs are written only when well. Memory
 * handed in stays the caller's and is not kept beyond the call.
 */

/* segment.c */
/**
 * punchd_segment_build() - Headers as they go on the wire, checksums and all
 * @seg:	what to write; no payload, a TTL above 0, a scale up to 14
 * @out, @out_len: the caller's buffer; PUNCHD_SEGMENT_MAX is always enough
 * Return: bytes written, or NO_ROOM, MALFORMED, UNSUPPORTED (IPv6, so far)
 */
int punchd_segment_build(const struct punchd_segment *seg,
			 uint8_t *out, size_t out_len);

/**
 * punchd_segment_build_many() - The same for an array, at a fixed distance
 * @segs, @n:	what to write
 * @out, @out_len: the caller's buffer; segment i begins at i * @stride
 * @stride:	bytes from one segment to the next
 * @lens:	@n lengths, filled
 * Return: @n, or the status of the first that cannot be built
 */
int punchd_segment_build_many(const struct punchd_segment *segs, size_t n,
			      uint8_t *out, size_t out_len, size_t stride,
			      uint16_t *lens);

/**
 * punchd_segment_spray() - One segment many times, but for ports and numbers
 * @seg:	as for punchd_segment_build(); its own ports and numbers are
 *		not looked at
 * @shots, @n:	what goes in their place
 * @out, @out_len: the caller's buffer; segments lie in it without gaps
 * Return: bytes of each segment, or the status of @seg, NO_ROOM
 */
int punchd_segment_spray(const struct punchd_segment *seg,
			 const struct punchd_shot *shots, size_t n,
			 uint8_t *out, size_t out_len);

/**
 * punchd_segment_parse() - Read the headers of a TCP segment
 * @in, @in_len: an IP packet; its payload may be cut, the headers may not
 * @seg:	filled when well; checksums are not looked at
 * Return: bytes of both headers, or TRUNCATED, MALFORMED, UNSUPPORTED
 */
int punchd_segment_parse(const uint8_t *in, size_t in_len,
			 struct punchd_segment *seg);

/**
 * punchd_segment_retouch() - Make a captured segment fit to be sent again
 * @bytes, @bytes_len: a segment without payload; its TTL and checksums are
 *		rewritten, what lies behind the headers is left alone
 * @ttl:	the new one, above 0
 * Return: bytes to send, or a status (UNSUPPORTED: it bore payload)
 */
int punchd_segment_retouch(uint8_t *bytes, size_t bytes_len, uint8_t ttl);

/**
 * punchd_segment_bare() - A segment without options, along a flow
 * @seg:	filled whole
 * @flow:	from its local end to its remote one; read only
 * @flags, @seq, @ack, @window, @ttl: of the segment
 */
void punchd_segment_bare(struct punchd_segment *seg,
			 const struct punchd_flow *flow, uint8_t flags,
			 uint32_t seq, uint32_t ack, uint16_t window,
			 uint8_t ttl);

/**
 * punchd_quote_parse() - Read an ICMP error and the flow it is about
 * @in, @in_len: an IP packet, from its first byte
 * @quote:	filled when well
 * Return: PUNCHD_OK, or TRUNCATED, MALFORMED, UNSUPPORTED (no error of type
 * 3, 11 or 12, or one that quotes neither TCP nor UDP)
 */
int punchd_quote_parse(const uint8_t *in, size_t in_len,
		       struct punchd_quote *quote);

/* filter.c */
/**
 * punchd_filter_ring() - What the capture ring keeps of a punch range
 * @port_lo, @port_hi: first and last port of the range, host order
 * @hole_ttl:	outgoing segments up to this TTL are kept as holes
 * @out, @out_len: the caller's program; PUNCHD_FILTER_MAX is always enough
 *
 * For an AF_PACKET SOCK_DGRAM socket on all interfaces. Kept of IPv4: outgoing
 * SYNs and holes without payload; incoming SYN, RST, bare ACKs with one of our
 * windows, ICMP errors that quote us. Not loopback, not later fragments.
 * Return: instructions written, or NO_ROOM, MALFORMED (an empty range)
 */
int punchd_filter_ring(uint16_t port_lo, uint16_t port_hi, uint8_t hole_ttl,
		       struct punchd_insn *out, size_t out_len);

/**
 * punchd_filter_peer() - Let a TCP or UDP socket hear one address alone
 * @address:	network order, 4 bytes for family 4 and 16 for 6
 * @family:	4 or 6
 * @out, @out_len: the caller's program
 * Return: instructions written, or NO_ROOM, MALFORMED, UNSUPPORTED
 */
int punchd_filter_peer(const uint8_t *address, uint8_t family,
		       struct punchd_insn *out, size_t out_len);

/**
 * punchd_filter_resets() - Let a TCP socket take no resets
 * @out, @out_len: the caller's program
 * Return: instructions written, or NO_ROOM
 */
int punchd_filter_resets(struct punchd_insn *out, size_t out_len);

/**
 * punchd_filter_tagged() - Drop datagrams that begin with a tag
 * @tag, @tag_len: PUNCHD_TAG_MIN to PUNCHD_TAG_MAX bytes, copied
 * @out, @out_len: the caller's program, for a UDP socket
 * Return: instructions written, or NO_ROOM, MALFORMED
 */
int punchd_filter_tagged(const uint8_t *tag, size_t tag_len,
			 struct punchd_insn *out, size_t out_len);

/* flows.c */
/**
 * punchd_flows_new() - A table of flows, empty
 * @capacity:	how many it will ever hold, up to 2^24
 * Return: the table, to be freed by punchd_flows_free(), or NULL
 */
struct punchd_flows *punchd_flows_new(uint32_t capacity);

/**
 * punchd_flows_free() - Free a table; no ring may drain with it again
 * @flows:	of punchd_flows_new(), or NULL
 */
void punchd_flows_free(struct punchd_flows *flows);

/**
 * punchd_flows_put() - Add a flow, or give it another token
 * @flows:	the table
 * @flow:	copied; any_port: for what comes in and fits no whole one
 * @token:	not 0
 * Return: PUNCHD_OK, or NO_ROOM, MALFORMED (token 0), UNSUPPORTED
 */
int punchd_flows_put(struct punchd_flows *flows,
		     const struct punchd_flow *flow, uint64_t token);

/**
 * punchd_flows_drop() - Forget a flow
 * @flows, @flow: the table, and which one
 * Return: PUNCHD_OK or PUNCHD_ABSENT
 */
int punchd_flows_drop(struct punchd_flows *flows,
		      const struct punchd_flow *flow);

/**
 * punchd_flows_watch() - Add a flow and, of TCP, its like with any port
 * @flows, @flow, @token: as for punchd_flows_put(); any_port is not looked at
 * Return: as punchd_flows_put(), nothing added unless PUNCHD_OK
 */
int punchd_flows_watch(struct punchd_flows *flows,
		       const struct punchd_flow *flow, uint64_t token);

/**
 * punchd_flows_unwatch() - Forget what punchd_flows_watch() has added
 * @flows, @flow: as there
 * @token:	the flow with any port goes only if it still has this one
 */
void punchd_flows_unwatch(struct punchd_flows *flows,
			  const struct punchd_flow *flow, uint64_t token);

/**
 * punchd_flows_note() - Keep who let a packet of a flow die
 * @flows:	the table
 * @quote:	an ICMP error; the first of a flow stays until it is taken
 * Return: 1 if the flow is known, else 0
 */
int punchd_flows_note(struct punchd_flows *flows,
		      const struct punchd_quote *quote);

/**
 * punchd_flows_take_note() - Ask for that, and forget it
 * @flows, @flow: the table, and which one
 * @note:	filled when well
 * Return: PUNCHD_OK, or PUNCHD_ABSENT: none since the last time, or no flow
 */
int punchd_flows_take_note(struct punchd_flows *flows,
			   const struct punchd_flow *flow,
			   struct punchd_note *note);

/**
 * punchd_flows_put_shots() - Add a flow per shot of a spray
 * @flows:	the table
 * @flow:	as for punchd_flows_put(); its ports are not looked at
 * @shots, @n:	source ports are local, destination ports remote; those that
 *		are added or were there with this token come first afterwards
 * @token:	not 0
 * Return: how many those are; others belong to another token or found no room
 */
size_t punchd_flows_put_shots(struct punchd_flows *flows,
			      const struct punchd_flow *flow,
			      struct punchd_shot *shots, size_t n,
			      uint64_t token);

/**
 * punchd_flows_drop_shots() - Forget a flow per shot, if it has this token
 * @flows, @flow, @shots, @n, @token: as for punchd_flows_put_shots()
 */
void punchd_flows_drop_shots(struct punchd_flows *flows,
			     const struct punchd_flow *flow,
			     const struct punchd_shot *shots, size_t n,
			     uint64_t token);

/**
 * punchd_flows_get() - Look a flow up
 * @flows, @flow: the table, and which one
 * Return: its token, or 0
 */
uint64_t punchd_flows_get(const struct punchd_flows *flows,
			  const struct punchd_flow *flow);

/**
 * punchd_flows_get_quoted() - Look up the flow that an ICMP error is about
 * @flows:	the table
 * @packet, @packet_len: the whole error, from its IP header
 * Return: its token, or 0 if it is nobody's or no such error
 */
uint64_t punchd_flows_get_quoted(const struct punchd_flows *flows,
				 const uint8_t *packet, size_t packet_len);

/**
 * punchd_flows_count() - How many flows are in
 * @flows:	the table
 * Return: the number
 */
uint32_t punchd_flows_count(const struct punchd_flows *flows);

/* capture.c */
/**
 * punchd_ring_open() - Open the capture ring; needs CAP_NET_RAW
 * @port_lo, @port_hi, @hole_ttl: as for punchd_filter_ring()
 * @frames:	slots of 256 bytes, rounded up to pages, up to 2^20
 * @out:	the ring, to be closed by punchd_ring_close()
 * Return: 0 or a negative errno
 */
int punchd_ring_open(uint16_t port_lo, uint16_t port_hi, uint8_t hole_ttl,
		     uint32_t frames, struct punchd_ring **out);

/**
 * punchd_ring_sift() - Let the kernel pass over incoming foreign segments
 * @ring:	fresh
 * @flows:	outlives the ring, whose sieve hears of its changes
 *
 * Needs CAP_BPF. Without it they wake the reader, and the drain passes over.
 * Return: 0 or a negative errno, nothing changed
 */
int punchd_ring_sift(struct punchd_ring *ring, struct punchd_flows *flows);

/**
 * punchd_ring_close() - Close and free a ring
 * @ring:	of punchd_ring_open(), or NULL
 */
void punchd_ring_close(struct punchd_ring *ring);

/**
 * punchd_ring_fd() - The descriptor to poll for reading
 * @ring:	keeps it: not to be closed by the caller
 * Return: the descriptor, readable while frames wait
 */
int punchd_ring_fd(const struct punchd_ring *ring);

/**
 * punchd_ring_drain() - Take waiting frames, tell those of known flows
 * @ring:	each slot is given back at once
 * @flows:	whose frames to tell; time-exceeded is noted there, not told,
 *		and an own SYN or SYN-ACK is told once
 * @out, @out_len: the caller's records
 *
 * At most one turn of the ring, so that a flood of foreign frames holds nobody.
 * Return: records filled; as many as @out_len means that more may wait
 */
int punchd_ring_drain(struct punchd_ring *ring, struct punchd_flows *flows,
		      struct punchd_record *out, size_t out_len);

/**
 * punchd_ring_drops() - How many frames found no free slot
 * @ring:	the ring
 * @drops:	the number since opening, filled when well
 * Return: 0 or a negative errno
 */
int punchd_ring_drops(struct punchd_ring *ring, uint64_t *drops);

/**
 * punchd_ring_detach() - Keep no further frame; for tests of a blind ring
 * @ring:	the ring
 * Return: 0 or a negative errno
 */
int punchd_ring_detach(struct punchd_ring *ring);

/* send.c */
/**
 * punchd_raw_open() - The socket that crafted segments leave by; CAP_NET_RAW
 * Return: a non-blocking descriptor, the caller's to close, or negative errno
 */
int punchd_raw_open(void);

/**
 * punchd_send_burst() - Send packets to where their headers say
 * @fd:		of punchd_raw_open()
 * @bytes, @bytes_len: packet i begins at i * @stride
 * @stride:	bytes from one packet to the next
 * @lens, @n:	their lengths, each up to @stride
 *
 * One to an own address is an injection into the own stack.
 * Return: how many left, in order (fewer than @n: the next one was refused
 * and will be so again), or the negative errno that refused the first one
 */
int punchd_send_burst(int fd, const uint8_t *bytes, size_t bytes_len,
		      size_t stride, const uint16_t *lens, size_t n);

/**
 * punchd_send_segments() - Build and send in one go
 * @fd:		of punchd_raw_open()
 * @segs, @n:	what to build
 * Return: as punchd_send_burst(), or a punchd_status of the first one
 */
int punchd_send_segments(int fd, const struct punchd_segment *segs, size_t n);

/**
 * punchd_send_bare() - The same for one segment, with all of punchd_segment_bare()
 * @fd:		of punchd_raw_open()
 * Return: 1, or the negative errno or punchd_status that refused it
 */
int punchd_send_bare(int fd, const struct punchd_flow *flow, uint8_t flags,
		     uint32_t seq, uint32_t ack, uint16_t window, uint8_t ttl);

/**
 * punchd_send_spray() - Build a spray and send it in one go
 * @fd:		of punchd_raw_open()
 * @seg, @shots, @n: as for punchd_segment_spray()
 * Return: as punchd_send_burst(), or the punchd_status of @seg
 */
int punchd_send_spray(int fd, const struct punchd_segment *seg,
		      const struct punchd_shot *shots, size_t n);

/**
 * punchd_filter_attach() - Attach a program, in place of an earlier one
 * @fd:		any socket; an accepted one inherits its listener's
 * @insns, @n:	up to PUNCHD_FILTER_MAX of them, copied by the kernel
 * Return: 0 or a negative errno
 */
int punchd_filter_attach(int fd, const struct punchd_insn *insns, size_t n);

/**
 * punchd_filter_detach() - Take the program away
 * @fd:		the socket
 * Return: 0 or a negative errno (-ENOENT: there was none)
 */
int punchd_filter_detach(int fd);

/* repair.c */
/**
 * punchd_repair_open() - An ESTABLISHED socket out of nothing; CAP_NET_ADMIN
 * @repair:	both ends, numbers and options
 *
 * Sends nothing but the probe. Binds beside any other socket on that port. But
 * for the TTL, no option is another than a fresh socket's.
 * Return: a non-blocking, close-on-exec descriptor, the caller's, or the
 * negative errno of the call that failed, everything undone
 */
int punchd_repair_open(const struct punchd_repair *repair);

/**
 * punchd_repair_drop() - Close a TCP socket without a packet
 * @fd:		closed in any case
 * Return: 0, or a negative errno if the close was not silent
 */
int punchd_repair_drop(int fd);

/**
 * punchd_repair_probe() - Send a window probe now
 * @fd:		a TCP socket; none is sent in CLOSE_WAIT and FIN_WAIT2
 *
 * Stream and SO_REUSEADDR stay as they are. A Linux peer answers one such
 * segment per 500 ms and connection (tcp_invalid_ratelimit), not more.
 * Return: 0 or a negative errno
 */
int punchd_repair_probe(int fd);

/* cffi: end */

#endif

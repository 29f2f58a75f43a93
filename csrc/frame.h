/* SPDX-License-Identifier: MIT */
/* frame.h - one frame of the capture ring, for capture.c and the tests.
 * It knows the layout of TPACKET_V2 and nothing of sockets.
 */
#ifndef PUNCHD_FRAME_H
#define PUNCHD_FRAME_H

#include "punchd.h"

/**
 * punchd_flows_repeats() - Whether the last own SYN of a flow was the same one
 * @flows, @flow: the table, and which one
 * @own:	a SYN or SYN-ACK of ours; flags and numbers are remembered
 *
 * Return: 1 if it was, else 0
 */
int punchd_flows_repeats(struct punchd_flows *flows,
			 const struct punchd_flow *flow,
			 const struct punchd_segment *own);

/**
 * punchd_frame_read() - One frame as the kernel left it, if it is of a flow
 * and news: a time-exceeded is only noted there, and repeating an own SYN,
 * whether by the kernel or by punchd_send_burst(), is none
 * @slot:	from struct tpacket2_hdr on; read only, owned by the ring
 * @slot_len:	bytes in @slot; nothing beyond is read, whatever it claims
 * @flows:	the flows to look up in, and to note in
 * @out:	filled only when the answer is 1
 *
 * Return: 1 if @out was filled, else 0
 */
int punchd_frame_read(const uint8_t *slot, size_t slot_len,
		      struct punchd_flows *flows,
		      struct punchd_record *out);

#endif

/* SPDX-License-Identifier: MIT */
/* frame.h - one frame of the capture ring, for capture.c and the tests.
 * It knows the layout of TPACKET_V2 and nothing of sockets.
 */
#ifndef PUNCHD_FRAME_H
#define PUNCHD_FRAME_H

#include "punchd.h"

/**
 * punchd_frame_read() - One frame as the kernel left it, if it is of a flow
 * and news: a time-exceeded is only noted there
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

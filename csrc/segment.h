/* SPDX-License-Identifier: MIT */
/* segment.h - what segment.c tells the other C files and Python need not know.
 * It repeats nothing of punchd.h.
 */
#ifndef PUNCHD_SEGMENT_H
#define PUNCHD_SEGMENT_H

#include "punchd.h"

/**
 * punchd_segment_target() - Where a crafted segment wants to go
 * @in:		IP packet, read only; owned by the caller
 * @in_len:	bytes in @in
 * @dst:	the destination, IPv4 in the first 4 bytes; filled when well
 *
 * Return: the family, 4, or a negative punchd_status
 */
int punchd_segment_target(const uint8_t *in, size_t in_len, uint8_t dst[16]);

#endif

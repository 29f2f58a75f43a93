/* SPDX-License-Identifier: MIT */
/* options.h - TCP options, for segment.c.
 * Python sees them only inside a segment.
 */
#ifndef PUNCHD_OPTIONS_H
#define PUNCHD_OPTIONS_H

#include "punchd.h"

#define PUNCHD_OPTIONS_MAX 20   /* MSS 4, SACK and timestamps 12, scale 4 */

/**
 * punchd_options_write() - Options as a Linux SYN bears them
 * @from:	what to write, read only
 * @out:	the caller's buffer, written only when well
 * @out_len:	bytes in @out, at least PUNCHD_OPTIONS_MAX
 *
 * Return: bytes written, a multiple of 4, or a negative punchd_status
 */
int punchd_options_write(const struct punchd_options *from,
			 uint8_t *out, size_t out_len);

/**
 * punchd_options_read() - Options of any peer; unknown kinds are passed over
 * @in:		the bytes behind the fixed TCP header, owned by the caller
 * @in_len:	bytes in @in
 * @out:	filled only when well
 *
 * Return: PUNCHD_OK, or PUNCHD_MALFORMED for a length that cannot be
 */
int punchd_options_read(const uint8_t *in, size_t in_len,
			struct punchd_options *out);

#endif

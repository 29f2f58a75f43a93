// SPDX-License-Identifier: MIT
/* options.c - TCP options: the four that punchd reads and writes, as bytes.
 * It knows no header around them and judges no value but the window scale.
 */
#include "options.h"

#define WINDOW_SCALE_MAX 14     /* RFC 7323 2.3: a larger one counts as 14 */

enum option_kind {
	OPTION_END = 0,
	OPTION_NOP = 1,
	OPTION_MSS = 2,
	OPTION_WINDOW_SCALE = 3,
	OPTION_SACK_PERMITTED = 4,
	OPTION_TIMESTAMPS = 8,
};

static uint8_t *put16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
	return at + 2;
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
	return put16(put16(at, (uint16_t)(value >> 16)), (uint16_t)value);
}

static uint16_t get16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static uint8_t *put_kind(uint8_t *at, enum option_kind kind, uint8_t len)
{
	at[0] = (uint8_t)kind;
	at[1] = len;
	return at + 2;
}

static uint8_t *put_nops(uint8_t *at)
{
	at[0] = OPTION_NOP;
	at[1] = OPTION_NOP;
	return at + 2;
}

/* The order of tcp_options_write(): a crafted SYN must look like a kernel's. */
int punchd_options_write(const struct punchd_options *from,
			 uint8_t *out, size_t out_len)
{
	uint8_t *at = out;

	if (out_len < PUNCHD_OPTIONS_MAX)
		return PUNCHD_NO_ROOM;
	if (from->window_scale > WINDOW_SCALE_MAX &&
	    from->window_scale != PUNCHD_NO_WINDOW_SCALE)
		return PUNCHD_MALFORMED;

	if (from->mss)
		at = put16(put_kind(at, OPTION_MSS, 4), from->mss);
	if (from->timestamps || from->sack_permitted) {
		/* NOPs fill the place of the one that is missing */
		if (!(from->timestamps && from->sack_permitted))
			at = put_nops(at);
		if (from->sack_permitted)
			at = put_kind(at, OPTION_SACK_PERMITTED, 2);
		if (from->timestamps) {
			at = put_kind(at, OPTION_TIMESTAMPS, 10);
			at = put32(put32(at, from->ts_val), from->ts_ecr);
		}
	}
	if (from->window_scale != PUNCHD_NO_WINDOW_SCALE) {
		*at++ = OPTION_NOP;
		at = put_kind(at, OPTION_WINDOW_SCALE, 3);
		*at++ = from->window_scale;
	}
	return (int)(at - out);
}

static int option_take(const uint8_t *at, size_t len,
		       struct punchd_options *out)
{
	switch (at[0]) {
	case OPTION_MSS:
		if (len != 4)
			return PUNCHD_MALFORMED;
		out->mss = get16(at + 2);
		return PUNCHD_OK;
	case OPTION_WINDOW_SCALE:
		if (len != 3)
			return PUNCHD_MALFORMED;
		out->window_scale = at[2] < WINDOW_SCALE_MAX ?
				    at[2] : WINDOW_SCALE_MAX;
		return PUNCHD_OK;
	case OPTION_SACK_PERMITTED:
		if (len != 2)
			return PUNCHD_MALFORMED;
		out->sack_permitted = 1;
		return PUNCHD_OK;
	case OPTION_TIMESTAMPS:
		if (len != 10)
			return PUNCHD_MALFORMED;
		out->timestamps = 1;
		out->ts_val = get32(at + 2);
		out->ts_ecr = get32(at + 6);
		return PUNCHD_OK;
	}
	return PUNCHD_OK;       /* the peer's kind, and none of ours */
}

int punchd_options_read(const uint8_t *in, size_t in_len,
			struct punchd_options *out)
{
	struct punchd_options got = {
		.window_scale = PUNCHD_NO_WINDOW_SCALE,
	};
	size_t at = 0, len;
	int status;

	while (at < in_len && in[at] != OPTION_END) {
		if (in[at] == OPTION_NOP) {
			at++;
			continue;
		}
		if (in_len - at < 2)
			return PUNCHD_MALFORMED;
		len = in[at + 1];
		if (len < 2 || len > in_len - at)
			return PUNCHD_MALFORMED;
		status = option_take(in + at, len, &got);
		if (status < 0)
			return status;
		at += len;
	}
	*out = got;
	return PUNCHD_OK;
}

// SPDX-License-Identifier: MIT
/* Invariant: what segment_parse takes and has no payload, segment_build makes
 * again, field by field; retouching changes TTL and checksums and nothing else.
 * It does not judge what is refused.
 */
#include "fuzz.h"

static void build_again(const struct punchd_segment *seg)
{
	uint8_t bytes[PUNCHD_SEGMENT_MAX];
	struct punchd_segment again;
	int len = punchd_segment_build(seg, bytes, sizeof(bytes));

	HOLDS(len > 0 && len <= PUNCHD_SEGMENT_MAX);
	HOLDS(punchd_segment_parse(bytes, (size_t)len, &again) == len);
	HOLDS(memcmp(seg, &again, sizeof(again)) == 0);
	HOLDS(punchd_segment_build(seg, bytes, (size_t)len - 1) ==
	      PUNCHD_NO_ROOM);
}

static void retouch(const uint8_t *data, size_t size, int len,
		    struct punchd_segment seg)
{
	struct punchd_segment again;
	uint8_t *copy = malloc(size);

	HOLDS(copy != NULL);
	memcpy(copy, data, size);
	HOLDS(punchd_segment_retouch(copy, size, 9) == len);
	HOLDS(punchd_segment_parse(copy, size, &again) == len);
	seg.ttl = 9;
	HOLDS(memcmp(&seg, &again, sizeof(again)) == 0);
	HOLDS(memcmp(data + len, copy + len, size - (size_t)len) == 0);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct punchd_segment seg;
	int len = punchd_segment_parse(data, size, &seg);

	if (len < 0)
		return 0;
	HOLDS(len >= 40 && len <= PUNCHD_SEGMENT_MAX && (size_t)len <= size);
	HOLDS(seg.family == 4);
	if (seg.payload_len)
		return 0;
	retouch(data, size, len, seg);
	if (seg.ttl)
		build_again(&seg);
	return 0;
}

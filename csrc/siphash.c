// SPDX-License-Identifier: MIT
/* siphash.c - SipHash-2-4, for tables that strangers fill.
 * It makes no system call and keeps nothing.
 */
#include "siphash.h"

static uint64_t rotate(uint64_t value, unsigned int by)
{
	return value << by | value >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

uint64_t punchd_siphash(const uint64_t seed[2], const uint64_t *words, size_t n)
{
	const uint64_t last = (uint64_t)(n * sizeof(*words)) << 56;
	uint64_t v[4] = {
		seed[0] ^ 0x736f6d6570736575U,
		seed[1] ^ 0x646f72616e646f6dU,
		seed[0] ^ 0x6c7967656e657261U,
		seed[1] ^ 0x7465646279746573U,
	};
	uint64_t word;
	size_t i;

	for (i = 0; i <= n; i++) {
		word = i < n ? words[i] : last;
		v[3] ^= word;
		sip_round(v);
		sip_round(v);
		v[0] ^= word;
	}
	v[2] ^= 0xff;
	for (i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

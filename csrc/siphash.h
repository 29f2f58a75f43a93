/* SPDX-License-Identifier: MIT */
/* siphash.h - SipHash-2-4 (Aumasson and Bernstein 2012) of whole words.
 * It knows no table; whoever calls keeps the seed to himself.
 */
#ifndef PUNCHD_SIPHASH_H
#define PUNCHD_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

/**
 * punchd_siphash() - A hash whose collisions cannot be foreseen from outside
 * @seed:	two words of chance, the same for what is to be compared
 * @words:	read only; owned by the caller
 * @n:		how many words, at most 31
 *
 * Return: the hash
 */
uint64_t punchd_siphash(const uint64_t seed[2], const uint64_t *words,
			size_t n);

#endif

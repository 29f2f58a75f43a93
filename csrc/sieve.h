/* SPDX-License-Identifier: MIT */
/* sieve.h - counts by which the kernel itself passes over foreign segments.
 * It says for sure whose segment is not ours, never whose is.
 */
#ifndef PUNCHD_SIEVE_H
#define PUNCHD_SIEVE_H

#include "punchd.h"

#include <linux/bpf.h>

#define PUNCHD_SIEVE_BITS 18
#define PUNCHD_SIEVE_LEN ((size_t)sizeof(uint16_t) << PUNCHD_SIEVE_BITS)
#define PUNCHD_SIEVE_INSNS 256

struct punchd_sieve {
	uint16_t *counts;       /* 1 << PUNCHD_SIEVE_BITS, shared with the kernel */
	uint32_t seed;
};

/**
 * punchd_sieve_add() - Let segments of this flow through
 * @sieve:	whose counts to raise
 * @flow:	of any protocol; other than IPv4's TCP has no count
 */
void punchd_sieve_add(struct punchd_sieve *sieve,
		      const struct punchd_flow *flow);

/**
 * punchd_sieve_remove() - Take back one punchd_sieve_add() of the same flow
 * @sieve, @flow: as there
 */
void punchd_sieve_remove(struct punchd_sieve *sieve,
			 const struct punchd_flow *flow);

/**
 * punchd_sieve_program() - The ring's filter, followed by the sieve
 * @filter, @filter_len: of punchd_filter_ring()
 * @seed:	as in the sieve
 * @map_fd:	the map whose one value the counts are
 * @out, @out_len: the caller's program; PUNCHD_SIEVE_INSNS is always enough
 *
 * What the filter keeps is kept, but for incoming TCP segments without count.
 * Return: instructions written, or NO_ROOM, UNSUPPORTED (of @filter)
 */
int punchd_sieve_program(const struct punchd_insn *filter, size_t filter_len,
			 uint32_t seed, int map_fd,
			 struct bpf_insn *out, size_t out_len);

/**
 * punchd_flows_sift() - Keep the counts of a sieve from now on
 * @flows:	the table; the flows in it are added
 * @sieve:	fresh, stays the caller's; or NULL: no longer
 */
void punchd_flows_sift(struct punchd_flows *flows, struct punchd_sieve *sieve);

#endif

/* SPDX-License-Identifier: MIT */
/* sift.h - the sieve's map and program, for capture.c.
 * Python sees of it whether a ring sifts.
 */
#ifndef PUNCHD_SIFT_H
#define PUNCHD_SIFT_H

#include "sieve.h"

/**
 * punchd_sift_open() - Attach the ring's filter with a sieve behind it
 * @fd:		the ring's socket, whose filter is replaced
 * @filter, @filter_len: of punchd_filter_ring()
 * @sieve:	filled when well, its counts all 0
 *
 * Needs CAP_BPF, or a kernel that lets everybody load socket filters.
 * Return: 0 or a negative errno
 */
int punchd_sift_open(int fd, const struct punchd_insn *filter,
		     size_t filter_len, struct punchd_sieve *sieve);

/**
 * punchd_sift_close() - Give the counts back; the socket is closed already
 * @sieve:	of punchd_sift_open()
 */
void punchd_sift_close(struct punchd_sieve *sieve);

#endif

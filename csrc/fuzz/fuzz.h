/* SPDX-License-Identifier: MIT */
/* fuzz.h - what every fuzz target shares: its entry and its way to fail.
 * It knows neither libFuzzer nor replay.c; both call the same function.
 */
#ifndef PUNCHD_FUZZ_H
#define PUNCHD_FUZZ_H

#include "../punchd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOLDS(claim) \
	((claim) ? (void)0 : (fprintf(stderr, "broken: %s\n", #claim), abort()))

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif

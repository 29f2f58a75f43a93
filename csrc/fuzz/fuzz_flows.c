// SPDX-License-Identifier: MIT
/* Invariant: after any sequence of puts and drops the table answers as a plain
 * array does, a full table refuses newcomers only, and the sieve lets each
 * known flow through and, of an empty table, none.
 * Two bytes are a step: what to do, and with which of 64 flows.
 */
#include "../sieve.h"
#include "fuzz.h"

#include <netinet/in.h>

#define FLOWS 64
#define CAPACITY 48

/* The upper half has any_port, so their remote ports tell nothing apart. */
static struct punchd_flow flow_of(uint8_t number)
{
	const uint8_t any_port = number / 32;
	struct punchd_flow flow = {
		.local = { 10, 0, 0, 1 }, .remote = { 10, 0, 0, 2 },
		.local_port = (uint16_t)(any_port ? number % 32 : number % 8),
		.remote_port = (uint16_t)(number / 8 % 4),
		.any_port = any_port,
		.family = 4, .protocol = IPPROTO_TCP,
	};

	return flow;
}

static uint32_t sum_of(const uint16_t *counts)
{
	uint32_t sum = 0;
	size_t i;

	for (i = 0; i < PUNCHD_SIEVE_LEN / sizeof(*counts); i++)
		sum += counts[i];
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint16_t counts[PUNCHD_SIEVE_LEN / sizeof(uint16_t)];
	struct punchd_sieve sieve = { .counts = counts, .seed = 4711 };
	struct punchd_flows *flows = punchd_flows_new(CAPACITY);
	uint64_t model[FLOWS] = { 0 };
	uint32_t count = 0;
	size_t i;

	HOLDS(flows != NULL);
	punchd_flows_sift(flows, &sieve);
	for (i = 0; i + 1 < size; i += 2) {
		uint8_t number = data[i + 1] % FLOWS;
		struct punchd_flow flow = flow_of(number);
		uint64_t *known = &model[number];
		int status;

		/* whatever was noted is that of this very stay in the table */
		if (data[i] & 2) {
			struct punchd_quote quote = {
				.flow = flow, .type = 11, .code = number,
			};
			struct punchd_note note;

			HOLDS(punchd_flows_note(flows, &quote) == !!*known);
			status = punchd_flows_take_note(flows, &flow, &note);
			HOLDS((status == PUNCHD_OK) == (*known != 0));
			HOLDS(!*known || note.code == number);
			HOLDS(punchd_flows_take_note(flows, &flow, &note) ==
			      PUNCHD_ABSENT);
		}
		if (data[i] & 1) {
			status = punchd_flows_put(flows, &flow, i + 1);
			HOLDS((status == PUNCHD_NO_ROOM) ==
			      (count == CAPACITY && !*known));
			if (status == PUNCHD_OK) {
				count += !*known;
				*known = i + 1;
			}
		} else {
			status = punchd_flows_drop(flows, &flow);
			HOLDS((status == PUNCHD_OK) == (*known != 0));
			count -= *known != 0;
			*known = 0;
		}
	}
	HOLDS(punchd_flows_count(flows) == count);
	for (i = 0; i < FLOWS; i++) {
		struct punchd_flow flow = flow_of((uint8_t)i);

		HOLDS(punchd_flows_get(flows, &flow) == model[i]);
	}
	/* as many counts as flows, and each drop takes its own back */
	if (size % 16 == 0)
		HOLDS(sum_of(counts) == count);
	for (i = 0; i < FLOWS; i++) {
		struct punchd_flow flow = flow_of((uint8_t)i);

		if (model[i])
			HOLDS(punchd_flows_drop(flows, &flow) == PUNCHD_OK);
	}
	if (size % 16 == 0)
		HOLDS(sum_of(counts) == 0);
	punchd_flows_free(flows);
	return 0;
}

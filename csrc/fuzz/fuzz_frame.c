// SPDX-License-Identifier: MIT
/* Invariant: whatever a slot of the ring holds, frame_read stays inside it and
 * fills a record only for the one flow that is known, or for its like from
 * another port and with that port, else leaves it alone. What it notes is a
 * time-exceeded, and not told as well.
 * The slot is the input, of its exact size, so that ASan sees each step beyond.
 */
#include "fuzz.h"
#include "../frame.h"

#include <arpa/inet.h>
#include <netinet/in.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct punchd_flow flow = {
		.local = { 192, 0, 2, 1 }, .remote = { 198, 51, 100, 2 },
		.local_port = 41000, .remote_port = 22000,
		.family = 4, .protocol = IPPROTO_TCP,
	};
	struct punchd_flow any = flow;
	struct punchd_flows *flows = punchd_flows_new(2);
	struct punchd_record record, untouched;
	struct punchd_note note;

	HOLDS(flows != NULL);
	any.any_port = 1;
	HOLDS(punchd_flows_put(flows, &flow, 7) == PUNCHD_OK);
	HOLDS(punchd_flows_put(flows, &any, 8) == PUNCHD_OK);
	memset(&record, 0x55, sizeof(record));
	untouched = record;
	if (punchd_frame_read(data, size, flows, &record)) {
		HOLDS(record.token == 7 || record.token == 8);
		if (record.token == 8) {
			HOLDS(record.kind == PUNCHD_RECORD_SEGMENT);
			HOLDS(!record.outgoing);
			HOLDS(record.other_port == record.segment.src_port);
			HOLDS(record.other_port != flow.remote_port);
		} else {
			HOLDS(record.other_port == 0);
		}
		HOLDS(record.kind == PUNCHD_RECORD_SEGMENT ||
		      record.kind == PUNCHD_RECORD_ICMP);
		HOLDS(record.outgoing <= 1);
		HOLDS(record.bytes_len <= PUNCHD_SEGMENT_MAX);
		HOLDS(punchd_flows_take_note(flows, &flow, &note) ==
		      PUNCHD_ABSENT);
	} else {
		HOLDS(memcmp(&record, &untouched, sizeof(record)) == 0);
		if (punchd_flows_take_note(flows, &flow, &note) == PUNCHD_OK)
			HOLDS(note.type == 11 && note.family == 4);
	}
	punchd_flows_free(flows);
	return 0;
}

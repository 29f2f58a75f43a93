// SPDX-License-Identifier: MIT
/* Invariant: what quote_parse takes is an error about a TCP or UDP flow, and
 * flows_get_quoted finds exactly that flow; what it refuses belongs to nobody.
 * It does not judge what is refused.
 */
#include "fuzz.h"

#include <netinet/in.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct punchd_flows *flows = punchd_flows_new(2);
	struct punchd_quote quote;

	HOLDS(flows != NULL);
	if (punchd_quote_parse(data, size, &quote) < 0) {
		HOLDS(punchd_flows_get_quoted(flows, data, size) == 0);
	} else {
		HOLDS(quote.type == 3 || quote.type == 11 || quote.type == 12);
		HOLDS(quote.flow.protocol == IPPROTO_TCP ||
		      quote.flow.protocol == IPPROTO_UDP);
		HOLDS(punchd_flows_get_quoted(flows, data, size) == 0);
		HOLDS(punchd_flows_put(flows, &quote.flow, 5) == PUNCHD_OK);
		HOLDS(punchd_flows_get_quoted(flows, data, size) == 5);
	}
	punchd_flows_free(flows);
	return 0;
}

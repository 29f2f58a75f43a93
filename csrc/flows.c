// SPDX-License-Identifier: MIT
/* flows.c - from a connection's 4-tuple to the token Python gave it.
 * It never grows after flows_new, and parses nothing itself (segment.c does).
 *
 * Open addressing with linear probing, at most half full. Deleting moves the
 * followers of a run back into the gap, so there are no tombstones and a
 * lookup costs the same after a million attempts as after one. The hash is
 * SipHash-2-4 with a seed per table: which places collide cannot be known from
 * outside, though a peer chooses its address and port.
 *
 * A place holds but the number of a slot, and slots are used again before fresh
 * ones are: what is resident follows the flows that are open, not all that were.
 *
 * A slot also keeps which time-exceeded came first, evidence for when an
 * attempt fails, and which own SYN was told last, for repeating it is no news.
 */
#define _DEFAULT_SOURCE
#include "frame.h"
#include "sieve.h"
#include "siphash.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CAPACITY_MAX (1U << 24)
#define KEY_WORDS (sizeof(struct punchd_flow) / sizeof(uint64_t))

_Static_assert(sizeof(struct punchd_flow) == 40, "hashed as five whole words");

struct slot {
	struct punchd_flow flow;
	uint64_t token;         /* 0: empty */
	struct punchd_note note;
	uint32_t own_seq;       /* of the own SYN or SYN-ACK told last */
	uint32_t own_ack;
	uint8_t own_flags;      /* 0: none yet */
	uint32_t next;          /* of an empty one: which to take after it */
};

struct punchd_flows {
	uint64_t seed[2];
	uint32_t capacity;
	uint32_t count;
	uint32_t mask;          /* number of places - 1 */
	uint32_t *places;       /* number of a slot; 0: nobody's */
	struct slot *slots;     /* capacity + 1; number 0 is always empty */
	uint32_t fresh;         /* first slot that was never used */
	uint32_t freed;         /* the one to use again; 0: none */
	struct punchd_sieve *sieve;     /* NULL, or to be told of each flow */
};

static uint32_t home_of(const struct punchd_flows *flows,
			const struct punchd_flow *flow)
{
	uint64_t words[KEY_WORDS];

	memcpy(words, flow, sizeof(words));
	return (uint32_t)punchd_siphash(flows->seed, words, KEY_WORDS) &
	       flows->mask;
}

/* Two flows that mean the same are equal byte by byte after this. */
static int normalise(const struct punchd_flow *from, struct punchd_flow *to)
{
	const size_t address_len = from->family == 4 ? 4 : 16;

	if (from->family != 4 && from->family != 6)
		return PUNCHD_UNSUPPORTED;
	if (from->protocol != IPPROTO_TCP && from->protocol != IPPROTO_UDP)
		return PUNCHD_UNSUPPORTED;
	memset(to, 0, sizeof(*to));
	memcpy(to->local, from->local, address_len);
	memcpy(to->remote, from->remote, address_len);
	to->local_port = from->local_port;
	to->any_port = from->any_port != 0;
	to->remote_port = to->any_port ? 0 : from->remote_port;
	to->family = from->family;
	to->protocol = from->protocol;
	return PUNCHD_OK;
}

static struct slot *slot_at(const struct punchd_flows *flows, uint32_t at)
{
	return &flows->slots[flows->places[at]];
}

static uint32_t take_slot(struct punchd_flows *flows)
{
	const uint32_t number = flows->freed ? flows->freed : flows->fresh++;

	flows->freed = flows->slots[number].next;
	return number;
}

static void free_slot(struct punchd_flows *flows, uint32_t number)
{
	memset(&flows->slots[number], 0, sizeof(flows->slots[number]));
	flows->slots[number].next = flows->freed;
	flows->freed = number;
}

/* The place of this key, or the empty one where it belongs. */
static uint32_t find(const struct punchd_flows *flows,
		     const struct punchd_flow *key)
{
	uint32_t at = home_of(flows, key);

	while (flows->places[at] &&
	       memcmp(&slot_at(flows, at)->flow, key, sizeof(*key)) != 0)
		at = (at + 1) & flows->mask;
	return at;
}

struct punchd_flows *punchd_flows_new(uint32_t capacity)
{
	struct punchd_flows *flows;
	uint32_t places = 2;

	if (capacity == 0 || capacity > CAPACITY_MAX)
		return NULL;
	while (places < 2 * capacity)
		places *= 2;
	flows = calloc(1, sizeof(*flows));
	if (!flows)
		return NULL;
	flows->places = calloc(places, sizeof(*flows->places));
	flows->slots = calloc((size_t)capacity + 1, sizeof(*flows->slots));
	flows->capacity = capacity;
	flows->mask = places - 1;
	flows->fresh = 1;
	if (!flows->places || !flows->slots ||
	    getrandom(flows->seed, sizeof(flows->seed), 0) !=
	    (ssize_t)sizeof(flows->seed)) {
		punchd_flows_free(flows);
		return NULL;
	}
	return flows;
}

void punchd_flows_free(struct punchd_flows *flows)
{
	if (!flows)
		return;
	free(flows->places);
	free(flows->slots);
	free(flows);
}

void punchd_flows_sift(struct punchd_flows *flows, struct punchd_sieve *sieve)
{
	uint32_t at;

	flows->sieve = sieve;
	for (at = 0; sieve && at <= flows->mask; at++)
		if (flows->places[at])
			punchd_sieve_add(sieve, &slot_at(flows, at)->flow);
}

int punchd_flows_put(struct punchd_flows *flows,
		     const struct punchd_flow *flow, uint64_t token)
{
	struct punchd_flow key;
	struct slot *slot;
	int status = normalise(flow, &key);
	uint32_t at;

	if (status < 0)
		return status;
	if (token == 0)
		return PUNCHD_MALFORMED;
	at = find(flows, &key);
	if (!flows->places[at]) {
		if (flows->count == flows->capacity)
			return PUNCHD_NO_ROOM;
		flows->count++;
		flows->places[at] = take_slot(flows);
		if (flows->sieve)
			punchd_sieve_add(flows->sieve, &key);
	}
	slot = slot_at(flows, at);
	if (slot->token != token) {
		memset(slot, 0, sizeof(*slot));
		slot->flow = key;
	}
	slot->token = token;
	return PUNCHD_OK;
}

int punchd_flows_drop(struct punchd_flows *flows,
		      const struct punchd_flow *flow)
{
	struct punchd_flow key;
	uint32_t gap, at, home;

	if (normalise(flow, &key) < 0)
		return PUNCHD_ABSENT;
	gap = find(flows, &key);
	if (!flows->places[gap])
		return PUNCHD_ABSENT;
	if (flows->sieve)
		punchd_sieve_remove(flows->sieve, &key);
	free_slot(flows, flows->places[gap]);
	for (at = (gap + 1) & flows->mask; flows->places[at];
	     at = (at + 1) & flows->mask) {
		home = home_of(flows, &slot_at(flows, at)->flow);
		/* it may move only if the gap lies between its home and it */
		if (((at - home) & flows->mask) < ((at - gap) & flows->mask))
			continue;
		flows->places[gap] = flows->places[at];
		gap = at;
	}
	flows->places[gap] = 0;
	flows->count--;
	return PUNCHD_OK;
}

int punchd_flows_watch(struct punchd_flows *flows,
		       const struct punchd_flow *flow, uint64_t token)
{
	struct punchd_flow one = *flow;
	int status;

	one.any_port = 0;
	status = punchd_flows_put(flows, &one, token);
	if (status < 0 || one.protocol != IPPROTO_TCP)
		return status;
	one.any_port = 1;
	status = punchd_flows_put(flows, &one, token);
	one.any_port = 0;
	if (status < 0)
		punchd_flows_drop(flows, &one);
	return status;
}

void punchd_flows_unwatch(struct punchd_flows *flows,
			  const struct punchd_flow *flow, uint64_t token)
{
	struct punchd_flow one = *flow;

	one.any_port = 0;
	punchd_flows_drop(flows, &one);
	one.any_port = 1;
	if (punchd_flows_get(flows, &one) == token)
		punchd_flows_drop(flows, &one);
}

int punchd_flows_note(struct punchd_flows *flows,
		      const struct punchd_quote *quote)
{
	struct punchd_flow key;
	struct slot *slot;

	if (normalise(&quote->flow, &key) < 0)
		return 0;
	slot = slot_at(flows, find(flows, &key));
	if (!slot->token)
		return 0;
	if (!slot->note.type) {
		memcpy(slot->note.sender, quote->sender,
		       sizeof(slot->note.sender));
		slot->note.type = quote->type;
		slot->note.code = quote->code;
		slot->note.family = quote->family;
	}
	return 1;
}

int punchd_flows_repeats(struct punchd_flows *flows,
			 const struct punchd_flow *flow,
			 const struct punchd_segment *own)
{
	struct punchd_flow key;
	struct slot *slot;
	int same;

	if (normalise(flow, &key) < 0)
		return 0;
	slot = slot_at(flows, find(flows, &key));
	if (!slot->token)
		return 0;
	same = slot->own_flags == own->flags && slot->own_seq == own->seq &&
	       slot->own_ack == own->ack;
	slot->own_flags = own->flags;
	slot->own_seq = own->seq;
	slot->own_ack = own->ack;
	return same;
}

int punchd_flows_take_note(struct punchd_flows *flows,
			   const struct punchd_flow *flow,
			   struct punchd_note *note)
{
	struct punchd_flow key;
	struct slot *slot;

	if (normalise(flow, &key) < 0)
		return PUNCHD_ABSENT;
	slot = slot_at(flows, find(flows, &key));
	if (!slot->note.type)
		return PUNCHD_ABSENT;
	*note = slot->note;
	memset(&slot->note, 0, sizeof(slot->note));
	return PUNCHD_OK;
}

size_t punchd_flows_put_shots(struct punchd_flows *flows,
			      const struct punchd_flow *flow,
			      struct punchd_shot *shots, size_t n,
			      uint64_t token)
{
	struct punchd_flow one = *flow;
	struct punchd_shot shot;
	size_t i, taken = 0;
	uint64_t holder;

	for (i = 0; i < n; i++) {
		shot = shots[i];
		one.local_port = shot.src_port;
		one.remote_port = shot.dst_port;
		holder = punchd_flows_get(flows, &one);
		if (holder ? holder != token :
			     punchd_flows_put(flows, &one, token) < 0)
			continue;
		shots[i] = shots[taken];
		shots[taken++] = shot;
	}
	return taken;
}

void punchd_flows_drop_shots(struct punchd_flows *flows,
			     const struct punchd_flow *flow,
			     const struct punchd_shot *shots, size_t n,
			     uint64_t token)
{
	struct punchd_flow one = *flow;
	size_t i;

	for (i = 0; i < n; i++) {
		one.local_port = shots[i].src_port;
		one.remote_port = shots[i].dst_port;
		if (punchd_flows_get(flows, &one) == token)
			punchd_flows_drop(flows, &one);
	}
}

uint64_t punchd_flows_get(const struct punchd_flows *flows,
			  const struct punchd_flow *flow)
{
	struct punchd_flow key;

	if (normalise(flow, &key) < 0)
		return 0;
	return slot_at(flows, find(flows, &key))->token;
}

uint64_t punchd_flows_get_quoted(const struct punchd_flows *flows,
				 const uint8_t *packet, size_t packet_len)
{
	struct punchd_quote quote;

	if (punchd_quote_parse(packet, packet_len, &quote) < 0)
		return 0;
	return punchd_flows_get(flows, &quote.flow);
}

uint32_t punchd_flows_count(const struct punchd_flows *flows)
{
	return flows->count;
}

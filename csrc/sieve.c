// SPDX-License-Identifier: MIT
/* sieve.c - the ring's filter with a look at the open flows, as eBPF.
 * It makes no system call (sift.c does) and decides about no own segment.
 *
 * A flow raises the count in one slot of a table that the kernel's program
 * reads; an incoming segment whose slot is 0 is nobody's and wakes nobody. The
 * slot is that of the peer's address and our port: its port may be another
 * than expected.
 * Flows may share a slot: what passes still has to be found in flows.c. The
 * hash only keeps strangers from meeting by accident; who finds a collision
 * has us look at a segment in vain.
 *
 * The filter's classic instructions are spelled in eBPF one by one: A is R0,
 * X is R7, M[0] is R8, R6 the context that loads from the packet need.
 */
#include "sieve.h"
#include "wire.h"

#include <arpa/inet.h>
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/if_arp.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <string.h>

#define A BPF_REG_0
#define CONTEXT BPF_REG_6
#define X BPF_REG_7
#define MEMORY BPF_REG_8
#define SAVED BPF_REG_9
#define LOOPBACK_INDEX 1        /* of every namespace: LOOPBACK_IFINDEX */
#define FIRST_FACTOR 0x9e3779b1U
#define SECOND_FACTOR 0x85ebca6bU
#define UP_TO_SLOT (32 - PUNCHD_SIEVE_BITS)

struct draft {
	struct bpf_insn *out;
	size_t room;
	size_t n;
	uint16_t at[PUNCHD_FILTER_MAX];         /* where a line begins */
};

static uint32_t slot_of(uint32_t seed, uint32_t address, uint32_t port)
{
	return (((address ^ seed) * FIRST_FACTOR) ^ port) * SECOND_FACTOR >>
	       UP_TO_SLOT;
}

static uint16_t *count_of(struct punchd_sieve *sieve,
			  const struct punchd_flow *flow)
{
	uint32_t address;

	if (flow->family != 4 || flow->protocol != IPPROTO_TCP)
		return NULL;
	memcpy(&address, flow->remote, sizeof(address));
	return &sieve->counts[slot_of(sieve->seed, ntohl(address),
				      flow->local_port)];
}

void punchd_sieve_add(struct punchd_sieve *sieve,
		      const struct punchd_flow *flow)
{
	uint16_t *count = count_of(sieve, flow);

	/* a full count stays so: its slot lets everything through for ever */
	if (count && *count < UINT16_MAX)
		__atomic_store_n(count, (uint16_t)(*count + 1),
				 __ATOMIC_RELEASE);
}

void punchd_sieve_remove(struct punchd_sieve *sieve,
			 const struct punchd_flow *flow)
{
	uint16_t *count = count_of(sieve, flow);

	if (count && *count < UINT16_MAX)
		__atomic_store_n(count, (uint16_t)(*count - 1),
				 __ATOMIC_RELEASE);
}

static void put(struct draft *draft, int code, int dst, int src, int off,
		uint32_t imm)
{
	if (draft->n < draft->room)
		draft->out[draft->n] = (struct bpf_insn){
			.code = (uint8_t)code,
			.dst_reg = (unsigned int)dst & 15U,
			.src_reg = (unsigned int)src & 15U,
			.off = (int16_t)off,
			.imm = (int32_t)imm,
		};
	draft->n++;
}

static void move(struct draft *draft, int dst, int src)
{
	put(draft, BPF_ALU | BPF_MOV | BPF_X, dst, src, 0, 0);
}

static void move_value(struct draft *draft, int dst, uint32_t value)
{
	put(draft, BPF_ALU | BPF_MOV | BPF_K, dst, 0, 0, value);
}

static void load_context(struct draft *draft, size_t offset)
{
	put(draft, BPF_LDX | BPF_MEM | BPF_W, A, CONTEXT, (int)offset, 0);
}

static void load_packet(struct draft *draft, uint16_t size, uint32_t offset)
{
	put(draft, BPF_LD | BPF_ABS | size, 0, 0, 0, offset);
}

static void give(struct draft *draft, uint32_t value)
{
	move_value(draft, A, value);
	put(draft, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

/* What classic BPF calls an extra load; others are the packet's bytes. */
static void load(struct draft *draft, const struct punchd_insn *in)
{
	switch (in->k) {
	case (uint32_t)(SKF_AD_OFF + SKF_AD_PROTOCOL):
		load_context(draft, offsetof(struct __sk_buff, protocol));
		put(draft, BPF_ALU | BPF_END | BPF_TO_BE, A, 0, 0, 16);
		return;
	case (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE):
		load_context(draft, offsetof(struct __sk_buff, pkt_type));
		return;
	case (uint32_t)(SKF_AD_OFF + SKF_AD_HATYPE):
		/* eBPF is shown no hardware type; loopback has its index */
		load_context(draft, offsetof(struct __sk_buff, ifindex));
		put(draft, BPF_JMP32 | BPF_JEQ | BPF_K, A, 0, 2,
		    LOOPBACK_INDEX);
		move_value(draft, A, ARPHRD_ETHER);
		put(draft, BPF_JMP | BPF_JA, 0, 0, 1, 0);
		move_value(draft, A, ARPHRD_LOOPBACK);
		return;
	default:
		load_packet(draft, BPF_SIZE(in->code), in->k);
	}
}

/* The filter keeps this packet: X is the length of its IP header if it is an
 * incoming segment. Others are kept whosever they are: what goes out is ours,
 * and errors are few (routers limit them).
 */
static void sift(struct draft *draft, uint32_t seed, int map_fd, uint32_t keep)
{
	const uint32_t protocol_at = offsetof(struct wire_ipv4, protocol);
	const uint32_t source_at = offsetof(struct wire_ipv4, src);
	size_t outgoing, other, known;

	load_context(draft, offsetof(struct __sk_buff, pkt_type));
	outgoing = draft->n;
	put(draft, BPF_JMP32 | BPF_JEQ | BPF_K, A, 0, 0, PACKET_OUTGOING);
	load_packet(draft, BPF_B, protocol_at);
	other = draft->n;
	put(draft, BPF_JMP32 | BPF_JNE | BPF_K, A, 0, 0, IPPROTO_TCP);
	load_packet(draft, BPF_W, source_at);
	move(draft, SAVED, A);
	/* our port */
	put(draft, BPF_LD | BPF_IND | BPF_H, 0, X, 0,
	    offsetof(struct wire_tcp, dst_port_be));
	put(draft, BPF_ALU | BPF_XOR | BPF_K, SAVED, 0, 0, seed);
	put(draft, BPF_ALU | BPF_MUL | BPF_K, SAVED, 0, 0, FIRST_FACTOR);
	put(draft, BPF_ALU | BPF_XOR | BPF_X, A, SAVED, 0, 0);
	put(draft, BPF_ALU | BPF_MUL | BPF_K, A, 0, 0, SECOND_FACTOR);
	put(draft, BPF_ALU | BPF_RSH | BPF_K, A, 0, 0, UP_TO_SLOT);
	put(draft, BPF_ALU | BPF_LSH | BPF_K, A, 0, 0, 1);
	/* the address of the counts: two instructions make one load */
	put(draft, BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, BPF_PSEUDO_MAP_VALUE,
	    0, (uint32_t)map_fd);
	put(draft, 0, 0, 0, 0, 0);
	put(draft, BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_1, A, 0, 0);
	put(draft, BPF_LDX | BPF_MEM | BPF_H, A, BPF_REG_1, 0, 0);
	known = draft->n;
	put(draft, BPF_JMP32 | BPF_JNE | BPF_K, A, 0, 0, 0);
	give(draft, 0);
	if (draft->n <= draft->room) {
		draft->out[outgoing].off = (int16_t)(draft->n - outgoing - 1);
		draft->out[other].off = (int16_t)(draft->n - other - 1);
		draft->out[known].off = (int16_t)(draft->n - known - 1);
	}
	give(draft, keep);
}

/* Jumps name lines here; aim() turns them into distances. */
static void jump(struct draft *draft, const struct punchd_insn *in, size_t line)
{
	put(draft, BPF_JMP32 | BPF_OP(in->code) | BPF_SRC(in->code), A, X,
	    (int)(line + 1 + in->jt), in->k);
	if (BPF_SRC(in->code) == BPF_K && draft->n <= draft->room)
		draft->out[draft->n - 1].src_reg = 0;
	put(draft, BPF_JMP | BPF_JA, 0, 0, (int)(line + 1 + in->jf), 0);
}

static void aim(struct draft *draft, size_t line)
{
	size_t i;

	for (i = draft->at[line] + 0U; i < draft->at[line] + 2U; i++)
		draft->out[i].off = (int16_t)
			(draft->at[draft->out[i].off] - (int)i - 1);
}

static int translate(struct draft *draft, const struct punchd_insn *in,
		     size_t line)
{
	switch (BPF_CLASS(in->code)) {
	case BPF_LD:
		if (BPF_MODE(in->code) == BPF_ABS)
			load(draft, in);
		else if (BPF_MODE(in->code) == BPF_IND)
			put(draft, in->code, 0, X, 0, in->k);
		else if (BPF_MODE(in->code) == BPF_MEM && in->k == 0)
			move(draft, A, MEMORY);
		else
			return PUNCHD_UNSUPPORTED;
		return PUNCHD_OK;
	case BPF_LDX:
		if (BPF_MODE(in->code) != BPF_MSH)
			return PUNCHD_UNSUPPORTED;
		move(draft, SAVED, A);
		load_packet(draft, BPF_B, in->k);
		put(draft, BPF_ALU | BPF_AND | BPF_K, A, 0, 0, 15);
		put(draft, BPF_ALU | BPF_LSH | BPF_K, A, 0, 0, 2);
		move(draft, X, A);
		move(draft, A, SAVED);
		return PUNCHD_OK;
	case BPF_ST:
		move(draft, MEMORY, A);
		return in->k == 0 ? PUNCHD_OK : PUNCHD_UNSUPPORTED;
	case BPF_ALU:
		put(draft, in->code, A, BPF_SRC(in->code) == BPF_X ? X : 0, 0,
		    BPF_SRC(in->code) == BPF_X ? 0 : in->k);
		return PUNCHD_OK;
	case BPF_JMP:
		jump(draft, in, line);
		return PUNCHD_OK;
	case BPF_MISC:
		move(draft, X, A);
		return BPF_MISCOP(in->code) == BPF_TAX ? PUNCHD_OK :
							 PUNCHD_UNSUPPORTED;
	default:
		return PUNCHD_UNSUPPORTED;
	}
}

int punchd_sieve_program(const struct punchd_insn *filter, size_t filter_len,
			 uint32_t seed, int map_fd,
			 struct bpf_insn *out, size_t out_len)
{
	struct draft draft = { .out = out, .room = out_len };
	size_t i;
	int rc;

	if (filter_len > PUNCHD_FILTER_MAX)
		return PUNCHD_UNSUPPORTED;
	put(&draft, BPF_ALU64 | BPF_MOV | BPF_X, CONTEXT, BPF_REG_1, 0, 0);
	move_value(&draft, A, 0);
	move_value(&draft, X, 0);
	move_value(&draft, MEMORY, 0);
	for (i = 0; i < filter_len; i++) {
		draft.at[i] = (uint16_t)draft.n;
		rc = PUNCHD_OK;
		if (filter[i].code != (BPF_RET | BPF_K))
			rc = translate(&draft, &filter[i], i);
		else if (filter[i].k)
			sift(&draft, seed, map_fd, filter[i].k);
		else
			give(&draft, 0);
		if (rc < 0)
			return rc;
		if (draft.n > out_len)
			return PUNCHD_NO_ROOM;
	}
	for (i = 0; i < filter_len; i++)
		if (BPF_CLASS(filter[i].code) == BPF_JMP)
			aim(&draft, i);
	return (int)draft.n;
}

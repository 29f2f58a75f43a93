// SPDX-License-Identifier: MIT
/* Invariant: for every packet the BPF programs decide as the plain C below,
 * which says the same in other words; no jump or load leaves its bounds.
 * Input: lo, hi (2 bytes each), hole TTL, frame type, device type, the packet.
 */
#include "fuzz.h"

#include <linux/filter.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>

struct frame {
	const uint8_t *bytes;   /* from where the socket's view begins */
	size_t len;
	const uint8_t *ip;      /* from the network header */
	size_t ip_len;
	uint32_t type;
	uint32_t hatype;
};

static int load_extra(const struct frame *frame, uint32_t k, uint32_t *value)
{
	if (k == (uint32_t)(SKF_AD_OFF + SKF_AD_PROTOCOL))
		*value = ETH_P_IP;
	else if (k == (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE))
		*value = frame->type;
	else if (k == (uint32_t)(SKF_AD_OFF + SKF_AD_HATYPE))
		*value = frame->hatype;
	else
		return 0;
	return 1;
}

/* 0: the packet ends before, and the kernel drops it. */
static int load(const struct frame *frame, uint32_t k, size_t size,
		uint32_t *value)
{
	const uint8_t *bytes = frame->bytes;
	size_t len = frame->len, i;

	if (load_extra(frame, k, value))
		return 1;
	if (k >= (uint32_t)SKF_NET_OFF) {
		bytes = frame->ip;
		len = frame->ip_len;
		k -= (uint32_t)SKF_NET_OFF;
	}
	if (len < size || k > len - size)
		return 0;
	for (*value = 0, i = 0; i < size; i++)
		*value = *value << 8 | bytes[k + i];
	return 1;
}

static size_t size_of(uint16_t code)
{
	return BPF_SIZE(code) == BPF_W ? 4 : BPF_SIZE(code) == BPF_H ? 2 : 1;
}

static uint32_t run(const struct punchd_insn *insns, size_t n,
		    const struct frame *frame)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = { 0 };
	size_t pc;

	for (pc = 0; pc < n; pc++) {
		const struct punchd_insn *in = &insns[pc];
		uint32_t k = in->k;
		int yes;

		switch (in->code) {
		case BPF_LD | BPF_W | BPF_LEN:
			a = (uint32_t)frame->len;
			continue;
		case BPF_LD | BPF_W | BPF_ABS:
		case BPF_LD | BPF_H | BPF_ABS:
		case BPF_LD | BPF_B | BPF_ABS:
			if (!load(frame, k, size_of(in->code), &a))
				return 0;
			continue;
		case BPF_LD | BPF_H | BPF_IND:
		case BPF_LD | BPF_B | BPF_IND:
			if (!load(frame, x + k, size_of(in->code), &a))
				return 0;
			continue;
		case BPF_LDX | BPF_B | BPF_MSH:
			if (!load(frame, k, 1, &x))
				return 0;
			x = (x & 15) * 4;
			continue;
		case BPF_LD | BPF_MEM:
			a = mem[k];
			continue;
		case BPF_ST:
			mem[k] = a;
			continue;
		case BPF_ALU | BPF_SUB | BPF_X:
			a -= x;
			continue;
		case BPF_ALU | BPF_AND | BPF_K:
			a &= k;
			continue;
		case BPF_ALU | BPF_RSH | BPF_K:
			a >>= k;
			continue;
		case BPF_MISC | BPF_TAX:
			x = a;
			continue;
		case BPF_RET | BPF_K:
			return k;
		case BPF_JMP | BPF_JEQ | BPF_K:
			yes = a == k;
			break;
		case BPF_JMP | BPF_JEQ | BPF_X:
			yes = a == x;
			break;
		case BPF_JMP | BPF_JGE | BPF_K:
			yes = a >= k;
			break;
		case BPF_JMP | BPF_JGT | BPF_K:
			yes = a > k;
			break;
		case BPF_JMP | BPF_JSET | BPF_K:
			yes = (a & k) != 0;
			break;
		default:
			HOLDS(!"an instruction nobody writes");
		}
		pc += yes ? in->jt : in->jf;
	}
	HOLDS(!"a program without an end");
	return 0;
}

static uint32_t at16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static int within(const uint8_t *port, uint16_t lo, uint16_t hi)
{
	return at16(port) >= lo && at16(port) <= hi;
}

static int keeps_tcp_in(const uint8_t *tcp, size_t len, uint16_t lo,
			uint16_t hi)
{
	uint32_t window;

	if (len < 14 || !within(tcp + 2, lo, hi))
		return 0;
	if (tcp[13] & (PUNCHD_SYN | PUNCHD_RST))
		return 1;
	if (len < 16 || tcp[13] != PUNCHD_ACK)
		return 0;
	window = at16(tcp + 14);
	return window == PUNCHD_WINDOW_PRIME ||
	       window == PUNCHD_WINDOW_FIRE ||
	       window == PUNCHD_WINDOW_ANSWER ||
	       window == PUNCHD_WINDOW_COMMIT;
}

static int keeps_icmp(const uint8_t *icmp, size_t len, uint16_t lo,
		      uint16_t hi)
{
	if (len < 30 || (icmp[0] != 3 && icmp[0] != 11 && icmp[0] != 12))
		return 0;
	return icmp[8] == 0x45 &&
	       (icmp[17] == IPPROTO_TCP || icmp[17] == IPPROTO_UDP) &&
	       within(icmp + 28, lo, hi);
}

static int keeps(const struct frame *frame, uint16_t lo, uint16_t hi,
		 uint8_t hole_ttl)
{
	const uint8_t *ip = frame->ip, *up;
	size_t ihl, len;

	if (frame->hatype == ARPHRD_LOOPBACK || frame->ip_len < 10 ||
	    (at16(ip + 6) & 0x1fff) != 0)
		return 0;
	ihl = (size_t)(ip[0] & 15) * 4;
	if (ihl > frame->ip_len)
		return 0;
	up = ip + ihl;
	len = frame->ip_len - ihl;
	if (frame->type == PACKET_OUTGOING)
		return ip[9] == IPPROTO_TCP && len >= 14 &&
		       within(up, lo, hi) &&
		       (up[13] & PUNCHD_SYN ||
			(ip[8] <= hole_ttl && len >= 16 &&
			 at16(up + 14) != PUNCHD_WINDOW_PRIME)) &&
		       at16(ip + 2) == ihl + (size_t)(up[12] >> 4) * 4;
	if (frame->type != PACKET_HOST)
		return 0;
	if (ip[9] == IPPROTO_ICMP)
		return keeps_icmp(up, len, lo, hi);
	return ip[9] == IPPROTO_TCP && keeps_tcp_in(up, len, lo, hi);
}

static void try_ring(const struct frame *frame, const uint8_t *how)
{
	const uint16_t lo = (uint16_t)at16(how), hi = (uint16_t)at16(how + 2);
	struct punchd_insn insns[PUNCHD_FILTER_MAX];
	int n = punchd_filter_ring(lo, hi, how[4], insns, PUNCHD_FILTER_MAX);

	HOLDS((n > 0) == (lo <= hi));
	if (n < 0)
		return;
	HOLDS(run(insns, (size_t)n, frame) ==
	      (keeps(frame, lo, hi, how[4]) ? PUNCHD_SEGMENT_MAX : 0U));
	HOLDS(punchd_filter_ring(lo, hi, how[4], insns, (size_t)n - 1) ==
	      PUNCHD_NO_ROOM);
}

static void try_peer(const struct frame *frame, const uint8_t *peer)
{
	struct punchd_insn insns[PUNCHD_FILTER_MAX];
	int n = punchd_filter_peer(peer, 4, insns, PUNCHD_FILTER_MAX);
	int from = frame->ip_len >= 16 && !memcmp(frame->ip + 12, peer, 4);

	HOLDS(n > 0);
	HOLDS((run(insns, (size_t)n, frame) != 0) == from);
}

static void try_tagged(const struct frame *frame, const uint8_t *tag,
		       size_t tag_len)
{
	struct punchd_insn insns[PUNCHD_FILTER_MAX];
	int n = punchd_filter_tagged(tag, tag_len, insns, PUNCHD_FILTER_MAX);
	int tagged = frame->len >= 8 + tag_len &&
		     !memcmp(frame->bytes + 8, tag, tag_len);

	HOLDS((n > 0) == (tag_len >= PUNCHD_TAG_MIN &&
			  tag_len <= PUNCHD_TAG_MAX));
	if (n > 0)
		HOLDS((run(insns, (size_t)n, frame) == 0) == tagged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame frame = { 0 };

	if (size < 7)
		return 0;
	frame.type = data[5] & 7;
	frame.hatype = data[6] & 1 ? ARPHRD_LOOPBACK : ARPHRD_ETHER;
	frame.bytes = frame.ip = data + 7;
	frame.len = frame.ip_len = size - 7;
	try_ring(&frame, data);
	try_peer(&frame, size >= 23 ? data + 19 : data);
	try_tagged(&frame, data, size < 20 ? size : 20);
	if (frame.len >= 8 + 16)
		try_tagged(&frame, frame.bytes + 8, 8 + data[6] % 9);
	return 0;
}

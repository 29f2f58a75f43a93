// SPDX-License-Identifier: MIT
/* filter.c - classic BPF programs: what the kernel is to keep for punchd.
 * It attaches nothing (send.c does) and knows no flow, only port ranges.
 *
 * Programs are written as lines with named places; assemble() turns the names
 * into distances. A load beyond the packet's end makes the kernel drop it.
 */
#include "wire.h"
#include "punchd.h"

#include <linux/filter.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <string.h>

#define LOAD8_AT (BPF_LD | BPF_B | BPF_ABS)     /* A = byte at k */
#define LOAD16_AT (BPF_LD | BPF_H | BPF_ABS)
#define LOAD32_AT (BPF_LD | BPF_W | BPF_ABS)
#define LOAD8_X (BPF_LD | BPF_B | BPF_IND)      /* A = byte at X + k */
#define LOAD16_X (BPF_LD | BPF_H | BPF_IND)
#define LOAD_IHL (BPF_LDX | BPF_B | BPF_MSH)    /* X = 4 * (byte at k & 15) */
#define LOAD_LEN (BPF_LD | BPF_W | BPF_LEN)
#define IF_EQ (BPF_JMP | BPF_JEQ | BPF_K)
#define IF_GE (BPF_JMP | BPF_JGE | BPF_K)
#define IF_GT (BPF_JMP | BPF_JGT | BPF_K)
#define IF_ANY (BPF_JMP | BPF_JSET | BPF_K)
#define IF_EQ_X (BPF_JMP | BPF_JEQ | BPF_X)
#define RETURN (BPF_RET | BPF_K)

#define IPV4(field) ((uint32_t)offsetof(struct wire_ipv4, field))
#define TCP(field) ((uint32_t)offsetof(struct wire_tcp, field))
#define ICMP(field) ((uint32_t)offsetof(struct wire_icmp, field))
#define QUOTED(field) ((uint32_t)sizeof(struct wire_icmp) + IPV4(field))
#define QUOTED_PORT ((uint32_t)(sizeof(struct wire_icmp) + \
		     sizeof(struct wire_ipv4) + \
		     offsetof(struct wire_udp, src_port_be)))
#define PLAIN_IPV4 (4U << 4 | sizeof(struct wire_ipv4) / 4)
#define EXTRA(field) ((uint32_t)(SKF_AD_OFF + (field)))

enum icmp_error {
	ICMP_UNREACHABLE = 3,
	ICMP_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
};

enum place {
	NEXT,           /* the following line; no line's own place */
	OUTGOING,
	EMPTY,
	ERROR,
	QUOTE,
	QUOTE_PORT,
	PASS,
	DROP,
};

struct line {
	enum place here;
	uint16_t code;
	uint32_t k;
	enum place yes;
	enum place no;
};

/* How many instructions to skip after line i to come to a place ahead. */
static int distance(const struct line *lines, size_t n, size_t i,
		    enum place place)
{
	size_t to;

	if (place == NEXT)
		return 0;
	for (to = i + 1; to < n; to++)
		if (lines[to].here == place)
			return to - i - 1 <= UINT8_MAX ?
			       (int)(to - i - 1) : PUNCHD_MALFORMED;
	return PUNCHD_MALFORMED;
}

static int assemble(const struct line *lines, size_t n,
		    struct punchd_insn *out, size_t out_len)
{
	int yes, no;
	size_t i;

	if (out_len < n)
		return PUNCHD_NO_ROOM;
	for (i = 0; i < n; i++) {
		yes = distance(lines, n, i, lines[i].yes);
		no = distance(lines, n, i, lines[i].no);
		if (yes < 0 || no < 0)
			return PUNCHD_MALFORMED;
		out[i].code = lines[i].code;
		out[i].k = lines[i].k;
		out[i].jt = (uint8_t)yes;
		out[i].jf = (uint8_t)no;
	}
	return (int)n;
}

int punchd_filter_ring(uint16_t port_lo, uint16_t port_hi, uint8_t hole_ttl,
		       struct punchd_insn *out, size_t out_len)
{
	const struct line lines[] = {
	/* A = EtherType, for the socket is bound to all protocols */
	{ NEXT, LOAD16_AT, EXTRA(SKF_AD_PROTOCOL), NEXT, NEXT },
	/* not IPv4? */
	{ NEXT, IF_EQ, ETH_P_IP, NEXT, DROP },
	/* A = hardware type of the device */
	{ NEXT, LOAD16_AT, EXTRA(SKF_AD_HATYPE), NEXT, NEXT },
	/* loopback carries what we injected ourselves */
	{ NEXT, IF_EQ, ARPHRD_LOOPBACK, DROP, NEXT },
	/* A = fragment field */
	{ NEXT, LOAD16_AT, IPV4(fragment_be), NEXT, NEXT },
	/* a later fragment has no ports */
	{ NEXT, IF_ANY, WIRE_FRAGMENT_OFFSET, DROP, NEXT },
	/* X = length of the IP header */
	{ NEXT, LOAD_IHL, IPV4(version_ihl), NEXT, NEXT },
	/* A = to whom the frame goes */
	{ NEXT, LOAD8_AT, EXTRA(SKF_AD_PKTTYPE), NEXT, NEXT },
	/* ours, on its way out */
	{ NEXT, IF_EQ, PACKET_OUTGOING, OUTGOING, NEXT },
	/* not to this host? */
	{ NEXT, IF_EQ, PACKET_HOST, NEXT, DROP },

	/* A = protocol of what came in */
	{ NEXT, LOAD8_AT, IPV4(protocol), NEXT, NEXT },
	/* a router may complain of our packet */
	{ NEXT, IF_EQ, IPPROTO_ICMP, ERROR, NEXT },
	/* neither ICMP nor TCP? */
	{ NEXT, IF_EQ, IPPROTO_TCP, NEXT, DROP },
	/* A = port it is for */
	{ NEXT, LOAD16_X, TCP(dst_port_be), NEXT, NEXT },
	/* below our range? */
	{ NEXT, IF_GE, port_lo, NEXT, DROP },
	/* above our range? */
	{ NEXT, IF_GT, port_hi, DROP, NEXT },
	/* A = flags */
	{ NEXT, LOAD8_X, TCP(flags), NEXT, NEXT },
	/* it opens, answers or refuses a connection */
	{ NEXT, IF_ANY, PUNCHD_SYN | PUNCHD_RST, PASS, NEXT },
	/* anything but a bare ACK is data of somebody else */
	{ NEXT, IF_EQ, PUNCHD_ACK, NEXT, DROP },
	/* A = window */
	{ NEXT, LOAD16_X, TCP(window_be), NEXT, NEXT },
	/* the other punchd's primer came all the way */
	{ NEXT, IF_EQ, PUNCHD_WINDOW_PRIME, PASS, NEXT },
	/* the other punchd fires */
	{ NEXT, IF_EQ, PUNCHD_WINDOW_FIRE, PASS, NEXT },
	/* the other punchd answers */
	{ NEXT, IF_EQ, PUNCHD_WINDOW_ANSWER, PASS, NEXT },
	/* the other punchd commits */
	{ NEXT, IF_EQ, PUNCHD_WINDOW_COMMIT, PASS, DROP },

	/* A = protocol of what goes out */
	{ OUTGOING, LOAD8_AT, IPV4(protocol), NEXT, NEXT },
	/* not TCP? */
	{ NEXT, IF_EQ, IPPROTO_TCP, NEXT, DROP },
	/* A = port it is from */
	{ NEXT, LOAD16_X, TCP(src_port_be), NEXT, NEXT },
	/* below our range? */
	{ NEXT, IF_GE, port_lo, NEXT, DROP },
	/* above our range? */
	{ NEXT, IF_GT, port_hi, DROP, NEXT },
	/* A = flags */
	{ NEXT, LOAD8_X, TCP(flags), NEXT, NEXT },
	/* our SYN or SYN-ACK */
	{ NEXT, IF_ANY, PUNCHD_SYN, EMPTY, NEXT },
	/* A = TTL */
	{ NEXT, LOAD8_AT, IPV4(ttl), NEXT, NEXT },
	/* ordinary traffic of a connection? */
	{ NEXT, IF_GT, hole_ttl, DROP, NEXT },
	/* A = window */
	{ NEXT, LOAD16_X, TCP(window_be), NEXT, NEXT },
	/* our own primer is no news to us, and not worth waking up for */
	{ NEXT, IF_EQ, PUNCHD_WINDOW_PRIME, DROP, NEXT },
	/* A = length of the packet */
	{ EMPTY, LOAD16_AT, IPV4(total_len_be), NEXT, NEXT },
	/* A = length of the segment */
	{ NEXT, BPF_ALU | BPF_SUB | BPF_X, 0, NEXT, NEXT },
	/* keep it */
	{ NEXT, BPF_ST, 0, NEXT, NEXT },
	/* A = byte with the length of the TCP header */
	{ NEXT, LOAD8_X, TCP(data_offset), NEXT, NEXT },
	/* A = that length in its upper half */
	{ NEXT, BPF_ALU | BPF_AND | BPF_K, 0xf0, NEXT, NEXT },
	/* A = that length in bytes */
	{ NEXT, BPF_ALU | BPF_RSH | BPF_K, 2, NEXT, NEXT },
	/* X = that length */
	{ NEXT, BPF_MISC | BPF_TAX, 0, NEXT, NEXT },
	/* A = length of the segment */
	{ NEXT, BPF_LD | BPF_MEM, 0, NEXT, NEXT },
	/* the header is all there is */
	{ NEXT, IF_EQ_X, 0, PASS, DROP },

	/* A = type of the ICMP message */
	{ ERROR, LOAD8_X, ICMP(type), NEXT, NEXT },
	/* destination unreachable */
	{ NEXT, IF_EQ, ICMP_UNREACHABLE, QUOTE, NEXT },
	/* time exceeded */
	{ NEXT, IF_EQ, ICMP_EXCEEDED, QUOTE, NEXT },
	/* parameter problem, or no error at all */
	{ NEXT, IF_EQ, ICMP_PARAMETER, NEXT, DROP },
	/* A = version and header length of the quoted packet */
	{ QUOTE, LOAD8_X, QUOTED(version_ihl), NEXT, NEXT },
	/* we send no IP options, so it has none */
	{ NEXT, IF_EQ, PLAIN_IPV4, NEXT, DROP },
	/* A = protocol of the quoted packet */
	{ NEXT, LOAD8_X, QUOTED(protocol), NEXT, NEXT },
	/* our TCP */
	{ NEXT, IF_EQ, IPPROTO_TCP, QUOTE_PORT, NEXT },
	/* our UDP, or nothing of ours */
	{ NEXT, IF_EQ, IPPROTO_UDP, NEXT, DROP },
	/* A = port the quoted packet was from */
	{ QUOTE_PORT, LOAD16_X, QUOTED_PORT, NEXT, NEXT },
	/* below our range? */
	{ NEXT, IF_GE, port_lo, NEXT, DROP },
	/* above our range? */
	{ NEXT, IF_GT, port_hi, DROP, PASS },

	/* keep the headers */
	{ PASS, RETURN, PUNCHD_SEGMENT_MAX, NEXT, NEXT },
	/* keep nothing */
	{ DROP, RETURN, 0, NEXT, NEXT },
	};

	if (port_lo > port_hi)
		return PUNCHD_MALFORMED;
	return assemble(lines, sizeof(lines) / sizeof(*lines), out, out_len);
}

int punchd_filter_peer(const uint8_t *address, uint8_t family,
		       struct punchd_insn *out, size_t out_len)
{
	const uint32_t peer = (uint32_t)address[0] << 24 |
			      (uint32_t)address[1] << 16 |
			      (uint32_t)address[2] << 8 | address[3];
	const struct line lines[] = {
	/* A = source address; the socket's own view begins behind it */
	{ NEXT, LOAD32_AT, (uint32_t)SKF_NET_OFF + IPV4(src), NEXT, NEXT },
	/* somebody else? */
	{ NEXT, IF_EQ, peer, NEXT, DROP },
	/* the whole packet */
	{ PASS, RETURN, UINT32_MAX, NEXT, NEXT },
	/* as if it had never come */
	{ DROP, RETURN, 0, NEXT, NEXT },
	};

	if (family == 6)
		return PUNCHD_UNSUPPORTED;
	if (family != 4)
		return PUNCHD_MALFORMED;
	return assemble(lines, sizeof(lines) / sizeof(*lines), out, out_len);
}

int punchd_filter_tagged(const uint8_t *tag, size_t tag_len,
			 struct punchd_insn *out, size_t out_len)
{
	const uint32_t payload = sizeof(struct wire_udp);
	struct line lines[2 + 2 * PUNCHD_TAG_MAX / 4 + 2];
	size_t n = 0, at;

	if (tag_len < PUNCHD_TAG_MIN || tag_len > PUNCHD_TAG_MAX)
		return PUNCHD_MALFORMED;
	/* A = length with the UDP header */
	lines[n++] = (struct line){ NEXT, LOAD_LEN, 0, NEXT, NEXT };
	/* too short to bear the tag? */
	lines[n++] = (struct line){ NEXT, IF_GE, payload + (uint32_t)tag_len,
				    NEXT, PASS };
	for (at = 0; at < tag_len; at += 4) {
		if (at > tag_len - 4)
			at = tag_len - 4;       /* the last word overlaps */
		/* A = four bytes of the payload */
		lines[n++] = (struct line){ NEXT, LOAD32_AT,
					    payload + (uint32_t)at,
					    NEXT, NEXT };
		/* not the tag's? */
		lines[n++] = (struct line){ NEXT, IF_EQ,
					    (uint32_t)tag[at] << 24 |
					    (uint32_t)tag[at + 1] << 16 |
					    (uint32_t)tag[at + 2] << 8 |
					    tag[at + 3], NEXT, PASS };
	}
	/* a late proof */
	lines[n++] = (struct line){ DROP, RETURN, 0, NEXT, NEXT };
	/* the application's */
	lines[n++] = (struct line){ PASS, RETURN, UINT32_MAX, NEXT, NEXT };
	return assemble(lines, n, out, out_len);
}

// SPDX-License-Identifier: MIT
/* segment.c - TCP headers and ICMP errors: structs to bytes and back.
 * It makes no system calls, allocates nothing and keeps no state.
 *
 * Parsers are total: each answers for every input, reads nothing beyond its
 * length, and leaves the output untouched unless it answers well. Checksums
 * are written, never checked: what the kernel captures carries partial ones.
 */
#include "segment.h"

#include "checksum.h"
#include "options.h"
#include "wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

enum icmp_error {
	ICMP_UNREACHABLE = 3,
	ICMP_EXCEEDED = 11,
	ICMP_PARAMETER = 12,
};

/* RFC 6864 4.1: with DF set the id may be anything; 0 makes the kernel draw. */
static uint16_t id_of(const struct punchd_segment *seg)
{
	uint32_t hash = seg->seq ^ seg->ack;

	hash ^= (uint32_t)seg->src_port << 16 | seg->dst_port;
	hash *= 0x9e3779b1U;
	hash ^= hash >> 15;
	hash *= 0x85ebca77U;
	return (uint16_t)(hash >> 16 | 1);
}

/* Both checksums of a whole segment whose IP header is ip_len bytes long. */
static void seal(uint8_t *bytes, size_t ip_len, size_t tcp_len)
{
	const size_t ip_at = offsetof(struct wire_ipv4, checksum_be);
	const size_t tcp_at = ip_len + offsetof(struct wire_tcp, checksum_be);
	uint32_t sum = IPPROTO_TCP + (uint32_t)tcp_len;
	uint16_t value;

	memset(bytes + ip_at, 0, sizeof(value));
	value = punchd_checksum_fold(punchd_checksum_add(0, bytes, ip_len));
	memcpy(bytes + ip_at, &value, sizeof(value));

	memset(bytes + tcp_at, 0, sizeof(value));
	sum = punchd_checksum_add(sum, bytes + offsetof(struct wire_ipv4, src),
				  2 * sizeof(((struct wire_ipv4 *)0)->src));
	sum = punchd_checksum_add(sum, bytes + ip_len, tcp_len);
	value = punchd_checksum_fold(sum);
	memcpy(bytes + tcp_at, &value, sizeof(value));
}

int punchd_segment_build(const struct punchd_segment *seg,
			 uint8_t *out, size_t out_len)
{
	uint8_t options[PUNCHD_OPTIONS_MAX];
	struct wire_ipv4 ip = { 0 };
	struct wire_tcp tcp = { 0 };
	size_t options_len, tcp_len, total_len;
	int status;

	if (seg->family == 6)
		return PUNCHD_UNSUPPORTED;
	if (seg->family != 4 || seg->ttl == 0 || seg->payload_len != 0)
		return PUNCHD_MALFORMED;
	status = punchd_options_write(&seg->options, options, sizeof(options));
	if (status < 0)
		return status;
	options_len = (size_t)status;
	tcp_len = sizeof(tcp) + options_len;
	total_len = sizeof(ip) + tcp_len;
	if (out_len < total_len)
		return PUNCHD_NO_ROOM;

	ip.version_ihl = 4 << 4 | sizeof(ip) / 4;
	ip.total_len_be = htons((uint16_t)total_len);
	ip.id_be = htons(id_of(seg));
	ip.fragment_be = htons(WIRE_DONT_FRAGMENT);
	ip.ttl = seg->ttl;
	ip.protocol = IPPROTO_TCP;
	memcpy(ip.src, seg->src, sizeof(ip.src));
	memcpy(ip.dst, seg->dst, sizeof(ip.dst));
	tcp.src_port_be = htons(seg->src_port);
	tcp.dst_port_be = htons(seg->dst_port);
	tcp.seq_be = htonl(seg->seq);
	tcp.ack_be = htonl(seg->ack);
	tcp.data_offset = (uint8_t)(tcp_len / 4 << 4);
	tcp.flags = seg->flags;
	tcp.window_be = htons(seg->window);

	memcpy(out, &ip, sizeof(ip));
	memcpy(out + sizeof(ip), &tcp, sizeof(tcp));
	memcpy(out + sizeof(ip) + sizeof(tcp), options, options_len);
	seal(out, sizeof(ip), tcp_len);
	return (int)total_len;
}

int punchd_segment_build_many(const struct punchd_segment *segs, size_t n,
			      uint8_t *out, size_t out_len, size_t stride,
			      uint16_t *lens)
{
	size_t i;
	int len;

	if (n > INT32_MAX || (n && out_len / n < stride))
		return PUNCHD_NO_ROOM;
	for (i = 0; i < n; i++) {
		len = punchd_segment_build(&segs[i], out + i * stride, stride);
		if (len < 0)
			return len;
		lens[i] = (uint16_t)len;
	}
	return (int)n;
}

static void add_word(uint32_t *sum, uint32_t word)
{
	*sum += (word >> 16) + (word & 0xffff);
}

static void aim(uint8_t *bytes, struct punchd_segment *seg,
		const struct punchd_shot *shot)
{
	const size_t tcp_at = sizeof(struct wire_ipv4);
	struct wire_ipv4 ip;
	struct wire_tcp tcp;

	seg->seq = shot->seq;
	seg->ack = shot->ack;
	seg->src_port = shot->src_port;
	seg->dst_port = shot->dst_port;
	memcpy(&ip, bytes, sizeof(ip));
	memcpy(&tcp, bytes + tcp_at, sizeof(tcp));
	ip.id_be = htons(id_of(seg));
	tcp.src_port_be = htons(seg->src_port);
	tcp.dst_port_be = htons(seg->dst_port);
	tcp.seq_be = htonl(seg->seq);
	tcp.ack_be = htonl(seg->ack);
	memcpy(bytes, &ip, sizeof(ip));
	memcpy(bytes + tcp_at, &tcp, sizeof(tcp));
}

/* Checksums are sums (RFC 1071): that of the template with zeros in the place
 * of what differs, plus what differs.
 */
static void seal_shot(uint8_t *bytes, const struct punchd_shot *shot,
		      uint32_t ip_sum, uint32_t tcp_sum)
{
	const size_t ip_at = offsetof(struct wire_ipv4, checksum_be);
	const size_t tcp_at = sizeof(struct wire_ipv4) +
			      offsetof(struct wire_tcp, checksum_be);
	uint16_t id_be, value;

	memcpy(&id_be, bytes + offsetof(struct wire_ipv4, id_be),
	       sizeof(id_be));
	value = punchd_checksum_fold(ip_sum + ntohs(id_be));
	memcpy(bytes + ip_at, &value, sizeof(value));
	add_word(&tcp_sum, shot->seq);
	add_word(&tcp_sum, shot->ack);
	tcp_sum += (uint32_t)shot->src_port + shot->dst_port;
	value = punchd_checksum_fold(tcp_sum);
	memcpy(bytes + tcp_at, &value, sizeof(value));
}

int punchd_segment_spray(const struct punchd_segment *seg,
			 const struct punchd_shot *shots, size_t n,
			 uint8_t *out, size_t out_len)
{
	const size_t ip_len = sizeof(struct wire_ipv4);
	struct punchd_segment one = *seg;
	uint8_t zeros[PUNCHD_SEGMENT_MAX];
	uint32_t ip_sum, tcp_sum;
	size_t len, i;
	int status;

	one.seq = one.ack = 0;
	one.src_port = one.dst_port = 0;
	status = punchd_segment_build(&one, zeros, sizeof(zeros));
	if (status < 0)
		return status;
	len = (size_t)status;
	if (n > INT32_MAX || (n && out_len / n < len))
		return PUNCHD_NO_ROOM;
	memset(zeros + offsetof(struct wire_ipv4, id_be), 0, sizeof(uint16_t));
	memset(zeros + offsetof(struct wire_ipv4, checksum_be), 0,
	       sizeof(uint16_t));
	memset(zeros + ip_len + offsetof(struct wire_tcp, checksum_be), 0,
	       sizeof(uint16_t));
	ip_sum = punchd_checksum_add(0, zeros, ip_len);
	tcp_sum = punchd_checksum_add(IPPROTO_TCP + (uint32_t)(len - ip_len),
				      zeros + offsetof(struct wire_ipv4, src),
				      len - offsetof(struct wire_ipv4, src));
	for (i = 0; i < n; i++, out += len) {
		memcpy(out, zeros, len);
		aim(out, &one, &shots[i]);
		seal_shot(out, &shots[i], ip_sum, tcp_sum);
	}
	return status;
}

/* Answers the header's length; total_len is checked against it alone. */
static int ipv4_read(const uint8_t *in, size_t in_len, struct wire_ipv4 *ip)
{
	size_t header_len;

	if (in_len < 1)
		return PUNCHD_TRUNCATED;
	if (in[0] >> 4 == 6)
		return PUNCHD_UNSUPPORTED;
	header_len = (size_t)(in[0] & 15) * 4;
	if (in[0] >> 4 != 4 || header_len < sizeof(*ip))
		return PUNCHD_MALFORMED;
	if (in_len < header_len)
		return PUNCHD_TRUNCATED;
	memcpy(ip, in, sizeof(*ip));
	if (ntohs(ip->total_len_be) < header_len)
		return PUNCHD_MALFORMED;
	return (int)header_len;
}

int punchd_segment_parse(const uint8_t *in, size_t in_len,
			 struct punchd_segment *seg)
{
	struct punchd_segment got = { .family = 4 };
	size_t ip_len, tcp_len, total_len;
	struct wire_ipv4 ip;
	struct wire_tcp tcp;
	int status;

	status = ipv4_read(in, in_len, &ip);
	if (status < 0)
		return status;
	ip_len = (size_t)status;
	total_len = ntohs(ip.total_len_be);
	if (ip.protocol != IPPROTO_TCP || ntohs(ip.fragment_be) &
	    (WIRE_FRAGMENT_OFFSET | WIRE_MORE_FRAGMENTS))
		return PUNCHD_UNSUPPORTED;
	if (total_len - ip_len < sizeof(tcp))
		return PUNCHD_MALFORMED;
	if (in_len - ip_len < sizeof(tcp))
		return PUNCHD_TRUNCATED;
	memcpy(&tcp, in + ip_len, sizeof(tcp));
	tcp_len = (size_t)(tcp.data_offset >> 4) * 4;
	if (tcp_len < sizeof(tcp) || total_len - ip_len < tcp_len)
		return PUNCHD_MALFORMED;
	if (in_len - ip_len < tcp_len)
		return PUNCHD_TRUNCATED;
	status = punchd_options_read(in + ip_len + sizeof(tcp),
				     tcp_len - sizeof(tcp), &got.options);
	if (status < 0)
		return status;

	memcpy(got.src, ip.src, sizeof(ip.src));
	memcpy(got.dst, ip.dst, sizeof(ip.dst));
	got.seq = ntohl(tcp.seq_be);
	got.ack = ntohl(tcp.ack_be);
	got.src_port = ntohs(tcp.src_port_be);
	got.dst_port = ntohs(tcp.dst_port_be);
	got.window = ntohs(tcp.window_be);
	got.payload_len = (uint16_t)(total_len - ip_len - tcp_len);
	got.ttl = ip.ttl;
	got.flags = tcp.flags;
	*seg = got;
	return (int)(ip_len + tcp_len);
}

int punchd_segment_retouch(uint8_t *bytes, size_t bytes_len, uint8_t ttl)
{
	struct punchd_segment seg;
	size_t ip_len;
	int len;

	len = punchd_segment_parse(bytes, bytes_len, &seg);
	if (len < 0)
		return len;
	if (seg.payload_len)
		return PUNCHD_UNSUPPORTED;      /* its payload is gone */
	if (ttl == 0)
		return PUNCHD_MALFORMED;
	ip_len = (size_t)(bytes[0] & 15) * 4;
	bytes[offsetof(struct wire_ipv4, ttl)] = ttl;
	seal(bytes, ip_len, (size_t)len - ip_len);
	return len;
}

int punchd_segment_target(const uint8_t *in, size_t in_len, uint8_t dst[16])
{
	struct wire_ipv4 ip;
	int status;

	status = ipv4_read(in, in_len, &ip);
	if (status < 0)
		return status;
	memset(dst, 0, 16);
	memcpy(dst, ip.dst, sizeof(ip.dst));
	return 4;
}

/* The packet an error quotes: its header and at least 8 bytes (RFC 792). */
static int quoted_read(const uint8_t *in, size_t in_len,
		       struct punchd_flow *flow)
{
	const size_t ports_len = sizeof(struct wire_udp);
	struct wire_ipv4 ip;
	struct wire_udp udp;    /* TCP's ports lie in the same place */
	int status;

	status = ipv4_read(in, in_len, &ip);
	if (status < 0)
		return status;
	if ((ip.protocol != IPPROTO_TCP && ip.protocol != IPPROTO_UDP) ||
	    ntohs(ip.fragment_be) & WIRE_FRAGMENT_OFFSET)
		return PUNCHD_UNSUPPORTED;
	if (in_len - (size_t)status < ports_len)
		return PUNCHD_TRUNCATED;
	memcpy(&udp, in + status, sizeof(udp));
	memcpy(flow->local, ip.src, sizeof(ip.src));
	memcpy(flow->remote, ip.dst, sizeof(ip.dst));
	flow->local_port = ntohs(udp.src_port_be);
	flow->remote_port = ntohs(udp.dst_port_be);
	flow->family = 4;
	flow->protocol = ip.protocol;
	return PUNCHD_OK;
}

void punchd_segment_bare(struct punchd_segment *seg,
			 const struct punchd_flow *flow, uint8_t flags,
			 uint32_t seq, uint32_t ack, uint16_t window,
			 uint8_t ttl)
{
	*seg = (struct punchd_segment){
		.seq = seq, .ack = ack, .window = window,
		.src_port = flow->local_port, .dst_port = flow->remote_port,
		.family = flow->family, .ttl = ttl, .flags = flags,
		.options.window_scale = PUNCHD_NO_WINDOW_SCALE,
	};
	memcpy(seg->src, flow->local, sizeof(seg->src));
	memcpy(seg->dst, flow->remote, sizeof(seg->dst));
}

int punchd_quote_parse(const uint8_t *in, size_t in_len,
		       struct punchd_quote *quote)
{
	struct punchd_quote got = { .family = 4 };
	size_t ip_len, quoted_at, end;
	struct wire_ipv4 ip;
	struct wire_icmp icmp;
	int status;

	status = ipv4_read(in, in_len, &ip);
	if (status < 0)
		return status;
	ip_len = (size_t)status;
	quoted_at = ip_len + sizeof(icmp);
	if (ip.protocol != IPPROTO_ICMP || ntohs(ip.fragment_be) &
	    (WIRE_FRAGMENT_OFFSET | WIRE_MORE_FRAGMENTS))
		return PUNCHD_UNSUPPORTED;
	if (ntohs(ip.total_len_be) < quoted_at)
		return PUNCHD_MALFORMED;
	if (in_len < quoted_at)
		return PUNCHD_TRUNCATED;
	memcpy(&icmp, in + ip_len, sizeof(icmp));
	if (icmp.type != ICMP_UNREACHABLE && icmp.type != ICMP_EXCEEDED &&
	    icmp.type != ICMP_PARAMETER)
		return PUNCHD_UNSUPPORTED;
	/* an Ethernet trailer behind the packet is no part of the quote */
	end = ntohs(ip.total_len_be);
	if (end > in_len)
		end = in_len;
	status = quoted_read(in + quoted_at, end - quoted_at, &got.flow);
	if (status < 0)
		return status;
	memcpy(got.sender, ip.src, sizeof(ip.src));
	got.type = icmp.type;
	got.code = icmp.code;
	got.ttl = ip.ttl;
	*quote = got;
	return PUNCHD_OK;
}

// SPDX-License-Identifier: MIT
/* send.c - the raw socket of crafted segments, and filters onto sockets.
 * It crafts and reads no packet (segment.c does) and waits for nothing.
 */
#define _GNU_SOURCE
#include "segment.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BATCH 64
#define SNDBUF_BYTES (4 << 20)  /* a burst of 1024 holes and room to spare */

_Static_assert(sizeof(struct sock_filter) == sizeof(struct punchd_insn) &&
	       offsetof(struct sock_filter, jt) ==
	       offsetof(struct punchd_insn, jt) &&
	       offsetof(struct sock_filter, jf) ==
	       offsetof(struct punchd_insn, jf) &&
	       offsetof(struct sock_filter, k) ==
	       offsetof(struct punchd_insn, k),
	       "punchd_insn is sock_filter in fixed widths");

int punchd_raw_open(void)
{
	const int sndbuf = SNDBUF_BYTES;
	int fd, rc;

	/* IPPROTO_RAW implies IP_HDRINCL and receives nothing: raw(7) */
	fd = socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    IPPROTO_RAW);
	if (fd < 0)
		return -errno;
	/* FORCE needs CAP_NET_ADMIN; without it the limit of the host is it */
	rc = setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf,
			sizeof(sndbuf));
	if (rc < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf,
				 sizeof(sndbuf));
	return fd;
}

/* At most BATCH of them: how many left, or negative errno if none did. */
static int send_batch(int fd, const uint8_t *bytes, size_t stride,
		      const uint16_t *lens, size_t n)
{
	struct sockaddr_in to[BATCH];
	struct mmsghdr msgs[BATCH];
	struct iovec parts[BATCH];
	uint8_t dst[16];
	size_t i;
	int rc;

	memset(to, 0, n * sizeof(to[0]));
	memset(msgs, 0, n * sizeof(msgs[0]));
	for (i = 0; i < n; i++) {
		const uint8_t *one = bytes + i * stride;

		if (lens[i] > stride ||
		    punchd_segment_target(one, lens[i], dst) != 4)
			return -EINVAL;
		to[i].sin_family = AF_INET;
		memcpy(&to[i].sin_addr, dst, sizeof(to[i].sin_addr));
		parts[i].iov_base = (void *)(uintptr_t)one;
		parts[i].iov_len = lens[i];
		msgs[i].msg_hdr.msg_name = &to[i];
		msgs[i].msg_hdr.msg_namelen = sizeof(to[i]);
		msgs[i].msg_hdr.msg_iov = &parts[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	do {
		rc = sendmmsg(fd, msgs, (unsigned int)n, 0);
	} while (rc < 0 && errno == EINTR);
	return rc < 0 ? -errno : rc;
}

int punchd_send_burst(int fd, const uint8_t *bytes, size_t bytes_len,
		      size_t stride, const uint16_t *lens, size_t n)
{
	size_t sent = 0, batch;
	int rc;

	if (n > INT32_MAX || (n && bytes_len / n < stride))
		return -EINVAL;
	while (sent < n) {
		batch = n - sent < BATCH ? n - sent : BATCH;
		rc = send_batch(fd, bytes + sent * stride, stride, lens + sent,
				batch);
		if (rc < 0)
			return sent ? (int)sent : rc;
		sent += (size_t)rc;
		if ((size_t)rc < batch)
			break;  /* the next call meets the same error first */
	}
	return (int)sent;
}

int punchd_send_segments(int fd, const struct punchd_segment *segs, size_t n)
{
	uint8_t bytes[BATCH * PUNCHD_SEGMENT_MAX];
	uint16_t lens[BATCH];
	size_t sent = 0, batch;
	int rc;

	if (n > INT32_MAX)
		return -EINVAL;
	while (sent < n) {
		batch = n - sent < BATCH ? n - sent : BATCH;
		rc = punchd_segment_build_many(segs + sent, batch,
					       bytes, sizeof(bytes),
					       PUNCHD_SEGMENT_MAX, lens);
		if (rc >= 0)
			rc = send_batch(fd, bytes, PUNCHD_SEGMENT_MAX, lens,
					batch);
		if (rc < 0)
			return sent ? (int)sent : rc;
		sent += (size_t)rc;
		if ((size_t)rc < batch)
			break;
	}
	return (int)sent;
}

int punchd_send_bare(int fd, const struct punchd_flow *flow, uint8_t flags,
		     uint32_t seq, uint32_t ack, uint16_t window, uint8_t ttl)
{
	struct punchd_segment seg;

	punchd_segment_bare(&seg, flow, flags, seq, ack, window, ttl);
	return punchd_send_segments(fd, &seg, 1);
}

int punchd_send_spray(int fd, const struct punchd_segment *seg,
		      const struct punchd_shot *shots, size_t n)
{
	uint8_t bytes[BATCH * PUNCHD_SEGMENT_MAX];
	uint16_t lens[BATCH];
	size_t sent = 0, batch, i;
	int len, rc;

	if (n > INT32_MAX)
		return -EINVAL;
	while (sent < n) {
		batch = n - sent < BATCH ? n - sent : BATCH;
		len = rc = punchd_segment_spray(seg, shots + sent, batch,
						bytes, sizeof(bytes));
		for (i = 0; i < batch && len > 0; i++)
			lens[i] = (uint16_t)len;
		if (len > 0)
			rc = send_batch(fd, bytes, (size_t)len, lens, batch);
		if (rc < 0)
			return sent ? (int)sent : rc;
		sent += (size_t)rc;
		if ((size_t)rc < batch)
			break;
	}
	return (int)sent;
}

int punchd_filter_attach(int fd, const struct punchd_insn *insns, size_t n)
{
	struct sock_filter copy[PUNCHD_FILTER_MAX];
	struct sock_fprog program = { .filter = copy };

	if (n == 0 || n > PUNCHD_FILTER_MAX)
		return -EINVAL;
	memcpy(copy, insns, n * sizeof(*copy));
	program.len = (unsigned short)n;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
		       sizeof(program)) < 0)
		return -errno;
	return 0;
}

int punchd_filter_detach(int fd)
{
	const int unused = 0;

	if (setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused,
		       sizeof(unused)) < 0)
		return -errno;
	return 0;
}

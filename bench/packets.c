// SPDX-License-Identifier: MIT
/* packets.c - the bare loops beside which punchd's sending and ring are held.
 * It measures and parses nothing; bench/packets.py does.
 *
 * packets flood SOURCE TARGET COUNT FIRST_PORT PORTS OWN OWN_EVERY RATE
 *	sends COUNT SYNs by sendmmsg: from SOURCE to PORTS ports of TARGET,
 *	every OWN_EVERY-th (0: none) from OWN instead, whose source port is 9;
 *	RATE a second, which it spins to keep, or as fast as it can (0).
 *	Says how many left, how many of them from OWN, and the seconds it took.
 * packets ring FRAMES FIRST_PORT LAST_PORT
 *	reads a ring like punchd's until nothing came for 0.3 s.
 *	Says how many frames it read, how many were lost, the seconds between
 *	the first and the last, and those of processor time.
 */
#define _GNU_SOURCE
#include "../csrc/punchd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define BATCH 64
#define CRAFTED 8192
#define OWN_PORT 9
#define SLOT_LEN 256
#define IDLE_MS 300

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static double clock_s(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double now_s(void)
{
	return clock_s(CLOCK_MONOTONIC);
}

/* CRAFTED packets, one behind the other; how long each is. */
static size_t craft(uint8_t *out, size_t out_len, char **argv, long *own)
{
	const long first = atol(argv[5]), ports = atol(argv[6]);
	const long every = atol(argv[8]);
	struct punchd_segment seg = {
		.family = 4, .ttl = 64, .flags = PUNCHD_SYN, .window = 65535,
		.options = { .mss = 1460, .window_scale = 7,
			     .sack_permitted = 1 },
	};
	struct punchd_shot shot;
	int i, len = 0;

	must(inet_pton(AF_INET, argv[3], seg.dst) == 1, "target");
	for (i = 0; i < CRAFTED; i++) {
		own[i] = every && i % every == 0;
		must(inet_pton(AF_INET, argv[own[i] ? 7 : 2], seg.src) == 1,
		     "source");
		shot.seq = (uint32_t)i;
		shot.ack = 0;
		shot.src_port = own[i] ? OWN_PORT : (uint16_t)(1024 + i);
		shot.dst_port = (uint16_t)(first + i % ports);
		len = punchd_segment_spray(&seg, &shot, 1, out, out_len);
		must(len > 0, "craft");
		out += len;
		out_len -= (size_t)len;
	}
	return (size_t)len;
}

static int flood(char **argv)
{
	static uint8_t bytes[CRAFTED * PUNCHD_SEGMENT_MAX];
	static long own[CRAFTED];
	const long count = atol(argv[4]), rate = atol(argv[9]);
	const int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	const int sndbuf = 4 << 20;
	const size_t len = craft(bytes, sizeof(bytes), argv, own);
	struct sockaddr_in to = { .sin_family = AF_INET };
	struct mmsghdr msgs[BATCH] = { 0 };
	struct iovec parts[BATCH];
	long sent = 0, ours = 0;
	double begun;
	int i, rc;

	must(fd >= 0, "socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &sndbuf,
			 sizeof(sndbuf));
	must(inet_pton(AF_INET, argv[3], &to.sin_addr) == 1, "target");
	begun = now_s();
	while (sent < count) {
		for (i = 0; i < BATCH; i++) {
			const long at = (sent + i) % CRAFTED;

			parts[i].iov_base = bytes + (size_t)at * len;
			parts[i].iov_len = len;
			msgs[i].msg_hdr.msg_name = &to;
			msgs[i].msg_hdr.msg_namelen = sizeof(to);
			msgs[i].msg_hdr.msg_iov = &parts[i];
			msgs[i].msg_hdr.msg_iovlen = 1;
		}
		rc = sendmmsg(fd, msgs, BATCH, 0);
		if (rc < 0 && errno == EINTR)
			continue;
		must(rc > 0, "sendmmsg");
		for (i = 0; i < rc; i++)
			ours += own[(sent + i) % CRAFTED];
		sent += rc;
		while (rate && (now_s() - begun) * (double)rate < (double)sent)
			;
	}
	printf("%ld %ld %.6f\n", sent, ours, now_s() - begun);
	return 0;
}

static void filter(int fd, uint16_t first, uint16_t last)
{
	struct punchd_insn insns[PUNCHD_FILTER_MAX];
	struct sock_fprog program = { .filter = (void *)insns };
	int n = punchd_filter_ring(first, last, 2, insns, PUNCHD_FILTER_MAX);

	must(n > 0, "filter");
	program.len = (unsigned short)n;
	must(!setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
			 sizeof(program)), "SO_ATTACH_FILTER");
}

static int ring(char **argv)
{
	const struct sockaddr_ll link = { .sll_family = AF_PACKET,
					  .sll_protocol = htons(ETH_P_ALL) };
	const int version = TPACKET_V2;
	const uint32_t frames = (uint32_t)atol(argv[2]);
	const size_t map_len = (size_t)frames * SLOT_LEN;
	struct tpacket_req req = { 4096, (uint32_t)(map_len / 4096), SLOT_LEN,
				   frames };
	struct tpacket_stats stats;
	socklen_t stats_len = sizeof(stats);
	struct pollfd poller = { .events = POLLIN };
	double first = 0, last = 0, used;
	uint32_t at = 0;
	long seen = 0;
	uint8_t *map;

	poller.fd = socket(AF_PACKET, SOCK_DGRAM, 0);
	must(poller.fd >= 0, "socket");
	filter(poller.fd, (uint16_t)atol(argv[3]), (uint16_t)atol(argv[4]));
	must(!setsockopt(poller.fd, SOL_PACKET, PACKET_VERSION, &version,
			 sizeof(version)), "PACKET_VERSION");
	must(!setsockopt(poller.fd, SOL_PACKET, PACKET_RX_RING, &req,
			 sizeof(req)), "PACKET_RX_RING");
	map = mmap(NULL, map_len, PROT_READ | PROT_WRITE, MAP_SHARED,
		   poller.fd, 0);
	must(map != MAP_FAILED, "mmap");
	must(!bind(poller.fd, (const void *)&link, sizeof(link)), "bind");
	puts("ready");
	fflush(stdout);
	used = clock_s(CLOCK_PROCESS_CPUTIME_ID);
	while (poll(&poller, 1, seen ? IDLE_MS : -1) > 0) {
		struct tpacket2_hdr *hdr;

		for (;; seen++, at = (at + 1) % frames) {
			hdr = (void *)(map + (size_t)at * SLOT_LEN);
			if (!(__atomic_load_n(&hdr->tp_status,
					      __ATOMIC_ACQUIRE) &
			      TP_STATUS_USER))
				break;
			__atomic_store_n(&hdr->tp_status, TP_STATUS_KERNEL,
					 __ATOMIC_RELEASE);
		}
		last = now_s();
		first = first == 0 ? last : first;
	}
	must(!getsockopt(poller.fd, SOL_PACKET, PACKET_STATISTICS, &stats,
			 &stats_len), "PACKET_STATISTICS");
	printf("%ld %u %.6f %.6f\n", seen, stats.tp_drops, last - first,
	       clock_s(CLOCK_PROCESS_CPUTIME_ID) - used);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 10 && !strcmp(argv[1], "flood"))
		return flood(argv);
	if (argc == 5 && !strcmp(argv[1], "ring"))
		return ring(argv);
	fprintf(stderr, "usage: see the head of packets.c\n");
	return 2;
}

// SPDX-License-Identifier: MIT
/* calls.c - what one system call costs that punchd makes and the floor does
 * not, or once did; bench/floor.py prints it.
 * It measures a warm loop: less than the same call costs in between others.
 *
 * Says a line for each: nanoseconds of processor time, and what it was.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#define TIMES 20000

struct kit {
	int stream;             /* bound and connected */
	int changes;            /* rtnetlink, silent */
	int diag;
};

struct question {
	struct nlmsghdr header;
	struct inet_diag_req_v2 request;
};

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void set(const struct kit *kit, int level, int option, int value)
{
	must(!setsockopt(kit->stream, level, option, &value, sizeof(value)),
	     "setsockopt");
}

static void get(const struct kit *kit, int level, int option)
{
	char room[256];
	socklen_t len = sizeof(room);

	must(!getsockopt(kit->stream, level, option, room, &len), "getsockopt");
}

static void set_min_ttl(const struct kit *kit)
{
	set(kit, IPPROTO_IP, IP_MINTTL, 2);
}

static void set_ttl(const struct kit *kit)
{
	set(kit, IPPROTO_IP, IP_TTL, -1);
}

static void set_syn_count(const struct kit *kit)
{
	set(kit, IPPROTO_TCP, TCP_SYNCNT, 6);
}

static void set_reuse(const struct kit *kit)
{
	set(kit, SOL_SOCKET, SO_REUSEADDR, 0);
}

static void get_error(const struct kit *kit)
{
	get(kit, SOL_SOCKET, SO_ERROR);
}

static void get_info(const struct kit *kit)
{
	get(kit, IPPROTO_TCP, TCP_INFO);
}

static void get_name(const struct kit *kit)
{
	struct sockaddr_in name;
	socklen_t len = sizeof(name);

	must(!getsockname(kit->stream, (void *)&name, &len), "getsockname");
}

static void get_random(const struct kit *kit)
{
	char nonce[16];

	(void)kit;
	must(getrandom(nonce, sizeof(nonce), 0) > 0, "getrandom");
}

static void ask_changes(const struct kit *kit)
{
	char room[4096];

	must(recv(kit->changes, room, sizeof(room), MSG_DONTWAIT) < 0,
	     "silence");
}

static void ask_diag(const struct kit *kit)
{
	struct question asked = {
		.header = { .nlmsg_len = sizeof(asked),
			    .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			    .nlmsg_flags = NLM_F_REQUEST },
		.request = { .sdiag_family = AF_INET,
			     .sdiag_protocol = IPPROTO_TCP,
			     .idiag_states = ~0U,
			     .id = { .idiag_sport = htons(21000),
				     .idiag_dport = htons(9),
				     .idiag_cookie = { ~0U, ~0U } } },
	};
	char room[4096];

	must(send(kit->diag, &asked, sizeof(asked), 0) > 0, "sock_diag");
	must(recv(kit->diag, room, sizeof(room), 0) > 0, "sock_diag");
}

static const struct {
	const char *name;
	void (*call)(const struct kit *kit);
} CALLS[] = {
	{ "setsockopt IP_MINTTL", set_min_ttl },
	{ "setsockopt IP_TTL", set_ttl },
	{ "setsockopt TCP_SYNCNT", set_syn_count },
	{ "setsockopt SO_REUSEADDR", set_reuse },
	{ "getsockopt SO_ERROR", get_error },
	{ "getsockopt TCP_INFO", get_info },
	{ "getsockname", get_name },
	{ "getrandom", get_random },
	{ "recv of no news about routes", ask_changes },
	{ "sock_diag, question and answer", ask_diag },
};

static double used_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (double)used.tv_sec * 1e9 + (double)used.tv_nsec;
}

int main(void)
{
	struct sockaddr_in there = { .sin_family = AF_INET };
	socklen_t len = sizeof(there);
	const int listener = socket(AF_INET, SOCK_STREAM, 0);
	const struct kit kit = {
		.stream = socket(AF_INET, SOCK_STREAM, 0),
		.changes = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE),
		.diag = socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG),
	};

	must(!listen(listener, 1) &&
	     !getsockname(listener, (void *)&there, &len), "listen");
	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(!connect(kit.stream, (void *)&there, len), "connect");
	for (size_t i = 0; i < sizeof(CALLS) / sizeof(*CALLS); i++) {
		const double begun_ns = used_ns();

		for (int n = 0; n < TIMES; n++)
			CALLS[i].call(&kit);
		printf("%.0f %s\n", (used_ns() - begun_ns) / TIMES,
		       CALLS[i].name);
	}
	return 0;
}

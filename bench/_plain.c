// SPDX-License-Identifier: MIT
/* _plain.c - plain connections by epoll: one byte each way, close.
 * It only measures how fast this machine and its NATs are; bench/throughput.py
 * runs it beside the uvloop baseline.
 *
 * A client says the seconds it took, and its processor time.
 *
 * Usage: _plain server PORT PORTS
 *        _plain client ADDRESS PORT PORTS COUNT CONCURRENCY
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 4096
#define EVENTS 256
#define FDS 65536

static char written[FDS];       /* a client's socket that has said its byte */

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void watch(int epoll, int fd, unsigned int events, int change)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	must(!epoll_ctl(epoll, change, fd, &event), "epoll_ctl");
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void serve(int port, int ports)
{
	struct epoll_event events[EVENTS];
	int epoll = epoll_create1(0), first = -1, last = -1, i, n, fd;
	char byte;

	for (i = 0; i < ports; i++) {
		struct sockaddr_in here = {
			.sin_family = AF_INET,
			.sin_port = htons((uint16_t)(port + i)),
		};
		int yes = 1;

		fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		must(fd >= 0, "socket");
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
		must(!bind(fd, (void *)&here, sizeof(here)), "bind");
		must(!listen(fd, BACKLOG), "listen");
		watch(epoll, fd, EPOLLIN, EPOLL_CTL_ADD);
		first = first < 0 ? fd : first;
		last = fd;
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		n = epoll_wait(epoll, events, EVENTS, -1);
		for (i = 0; i < n; i++) {
			fd = events[i].data.fd;
			if (fd > last || fd < first) {
				if (read(fd, &byte, 1) == 1 || errno != EAGAIN)
					close(fd);
				continue;
			}
			while ((fd = accept4(events[i].data.fd, NULL, NULL,
					     SOCK_NONBLOCK)) >= 0) {
				must(write(fd, "x", 1) == 1, "write");
				watch(epoll, fd, EPOLLIN, EPOLL_CTL_ADD);
			}
		}
	}
}

static void begin(int epoll, const char *address, int port)
{
	struct sockaddr_in there = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)port),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	must(fd >= 0 && fd < FDS, "socket");
	must(inet_pton(AF_INET, address, &there.sin_addr) == 1, "address");
	must(!connect(fd, (void *)&there, sizeof(there)) ||
	     errno == EINPROGRESS, "connect");
	written[fd] = 0;
	watch(epoll, fd, EPOLLOUT, EPOLL_CTL_ADD);
}

static void run(const char *address, int port, int ports, int count,
		int concurrency)
{
	struct epoll_event events[EVENTS];
	int epoll = epoll_create1(0), begun = 0, ended = 0, i, n, fd;
	double start = now_s();
	char byte;

	while (begun < concurrency && begun < count)
		begin(epoll, address, port + begun++ % ports);
	while (ended < count) {
		n = epoll_wait(epoll, events, EVENTS, -1);
		for (i = 0; i < n; i++) {
			fd = events[i].data.fd;
			if (!written[fd]) {
				must(write(fd, "x", 1) == 1, "connected");
				written[fd] = 1;
				watch(epoll, fd, EPOLLIN, EPOLL_CTL_MOD);
				continue;
			}
			must(read(fd, &byte, 1) == 1, "read");
			close(fd);
			ended++;
			if (begun < count)
				begin(epoll, address, port + begun++ % ports);
		}
	}
	printf("%.9f %.9f\n", now_s() - start,
	       (double)clock() / CLOCKS_PER_SEC);
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "server"))
		serve(atoi(argv[2]), atoi(argv[3]));
	must(argc == 7 && !strcmp(argv[1], "client"), "usage");
	run(argv[2], atoi(argv[3]), atoi(argv[4]), atoi(argv[5]),
	    atoi(argv[6]));
	return 0;
}

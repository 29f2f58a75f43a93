// SPDX-License-Identifier: MIT
/* _echo.c - one line at a time over a Unix socket: who asks, and who answers.
 * It knows no API: the server is the least that any server by epoll can do,
 * the client waits and does nothing else; bench/api.py runs them.
 *
 * _echo server PATH            gives back what it is sent, until it is killed
 * _echo client PATH SECONDS    pings whoever serves PATH, one ping at a time;
 *	says how many answers a second came
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 64

static const char PING[] = "{\"call\":\"ping\",\"id\":\"1\"}\n";

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static struct sockaddr_un place(const char *path)
{
	struct sockaddr_un place = { .sun_family = AF_UNIX };

	must(strlen(path) < sizeof(place.sun_path), "a path so long");
	strcpy(place.sun_path, path);
	return place;
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	must(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static void serve(const char *path)
{
	const struct sockaddr_un here = place(path);
	const int epoll = epoll_create1(0);
	const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	struct epoll_event events[EVENTS];
	char line[4096];

	must(!bind(listener, (const void *)&here, sizeof(here)) &&
	     !listen(listener, 64), path);
	watch(epoll, listener);
	for (;;) {
		const int n = epoll_wait(epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			const int fd = events[i].data.fd;
			ssize_t len;

			if (fd == listener) {
				watch(epoll, accept(listener, NULL, NULL));
				continue;
			}
			len = recv(fd, line, sizeof(line), 0);
			if (len <= 0 ||
			    send(fd, line, (size_t)len, MSG_NOSIGNAL) != len)
				close(fd);
		}
	}
}

static void ask(const char *path, double seconds)
{
	const struct sockaddr_un there = place(path);
	const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char answer[4096];
	double begun, passed;
	ssize_t len;
	long answered = 0;

	must(!connect(fd, (const void *)&there, sizeof(there)), path);
	begun = now_s();
	while ((passed = now_s() - begun) < seconds) {
		must(send(fd, PING, sizeof(PING) - 1, 0) > 0, "send");
		do { /* a pong has some hundred bytes */
			len = recv(fd, answer, sizeof(answer), 0);
			must(len > 0, "recv");
		} while (answer[len - 1] != '\n');
		answered++;
	}
	printf("%.3f\n", (double)answered / passed);
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "server"))
		serve(argv[2]);
	if (argc == 4 && !strcmp(argv[1], "client")) {
		ask(argv[2], atof(argv[3]));
		return 0;
	}
	fprintf(stderr, "usage: see the head of _echo.c\n");
	return 2;
}

/* SPDX-License-Identifier: MIT */
/* punch_client.c - what a program in any language needs to use punchd.
 * It does not parse JSON: it looks for the keys it needs in punchd's own, compact lines.
 *
 *   punch_client SOCKET initiate PEER SELF      prints the notification for the peer
 *   punch_client SOCKET respond NOTIFICATION
 *
 * Both then wait for their descriptor, send a line over it and print the peer's.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct reader {
	int daemon;
	int fd;                 /* the last descriptor that came, or -1 */
	size_t len;
	char data[65536];
};

static void die(const char *what)
{
	perror(what);
	exit(2);
}

static int call_daemon(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct ucred server;
	socklen_t server_len = sizeof(server);
	int daemon = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (daemon < 0 || strlen(path) >= sizeof(address.sun_path))
		die(path);
	strcpy(address.sun_path, path);
	if (connect(daemon, (struct sockaddr *)&address, sizeof(address)))
		die(path);
	/* in a shared folder anybody may be first to serve a path */
	if (getsockopt(daemon, SOL_SOCKET, SO_PEERCRED, &server, &server_len))
		die("SO_PEERCRED");
	if (server.uid != 0 && server.uid != getuid()) {
		fprintf(stderr, "%s is served by uid %u\n", path, server.uid);
		exit(2);
	}
	return daemon;
}

/* Read more. A plain read() would lose descriptors silently. */
static void receive(struct reader *reader)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec data = { reader->data + reader->len,
			      sizeof(reader->data) - 1 - reader->len };
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control) };
	struct cmsghdr *header;
	ssize_t len = recvmsg(reader->daemon, &message, MSG_CMSG_CLOEXEC);

	if (len <= 0)
		die("punchd");
	header = CMSG_FIRSTHDR(&message);
	if (header && header->cmsg_type == SCM_RIGHTS)
		memcpy(&reader->fd, CMSG_DATA(header), sizeof(int));
	reader->len += (size_t)len;
	reader->data[reader->len] = 0;
}

/* Cut the next line off into `line`, which has the reader's size. */
static void next_line(struct reader *reader, char *line)
{
	char *end;
	size_t len;

	while (!(end = strchr(reader->data, '\n')))
		receive(reader);
	len = (size_t)(end - reader->data) + 1;
	memcpy(line, reader->data, len - 1);
	line[len - 1] = 0;
	reader->len -= len;
	memmove(reader->data, reader->data + len, reader->len + 1);
}

/* A line each way over the punched connection, which is non-blocking. */
static int talk(int fd, const char *who)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	char text[256];
	ssize_t len;

	dprintf(fd, "hello from the %s\n", who);
	if (poll(&ready, 1, 10000) != 1)
		die("the peer says nothing");
	len = read(fd, text, sizeof(text));
	if (len <= 0)
		die("the peer");
	fwrite(text, 1, (size_t)len, stdout);
	return 0;
}

int main(int argc, char **argv)
{
	static struct reader reader = { .fd = -1 };
	static char line[sizeof(reader.data)], *found;
	int initiates = argc == 5 && !strcmp(argv[2], "initiate");

	if (!initiates && !(argc == 4 && !strcmp(argv[2], "respond"))) {
		fprintf(stderr, "usage: %s SOCKET initiate PEER SELF | respond NOTIFICATION\n", argv[0]);
		return 2;
	}
	reader.daemon = call_daemon(argv[1]);
	if (initiates)
		dprintf(reader.daemon, "{\"id\":\"c\",\"call\":\"initiate\",\"peer\":\"%s\",\"self\":\"%s\"}\n",
			argv[3], argv[4]);
	else
		dprintf(reader.daemon, "{\"id\":\"c\",\"call\":\"respond\",\"notification\":\"%s\"}\n", argv[3]);
	for (;;) {
		next_line(&reader, line);
		if (strstr(line, "\"status\":\"ok\"") && reader.fd >= 0)
			return talk(reader.fd, initiates ? "initiator" : "responder");
		if (strstr(line, "\"status\":\"error\"")) {
			fprintf(stderr, "%s\n", line);
			return 1;
		}
		found = strstr(line, "\"notification\":\"");
		if (found) {
			found += strlen("\"notification\":\"");
			printf("%.*s\n", (int)strcspn(found, "\""), found);
			fflush(stdout);
		}
	}
}

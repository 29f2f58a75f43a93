// SPDX-License-Identifier: MIT
/* floor.c - one of two daemons that can do nothing but tcp-midstream between
 * two kernel NATs: what a punch costs where only its system calls are left.
 * It checks nothing that a daemon must: no port, no seal, no rights, no loss;
 * and its numbers are no secret.
 *
 * Usage: floor [what punchd would be told] --socket PATH
 *
 * Request line, PRIME, notification, FIRE, ANSWER, COMMIT, descriptor: as
 * punchd has them (core/techniques/tcp_midstream.py), to and from the same
 * applications (bench/_client.py). Segments and lines of one turn of the loop
 * leave together; the ring and the made socket are csrc's own.
 */
#define _GNU_SOURCE
#include "../csrc/punchd.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PORT_LO 21000
#define PORTS 10999
#define HOLE_TTL 2
#define FULL_TTL 64
#define FRAMES 16384
#define RECORDS 256
#define ROOM 262144
#define TURN 4096               /* lines or segments of one turn, at most */
#define ID_MAX 24
#define PATIENCE_MS 5000        /* nothing lost is ever said again */

/* The notification, a letter for each half byte: nearly as long as punchd's. */
struct note {
	uint8_t initiator[4];
	uint16_t initiator_port;
	uint16_t responder_port;
	uint32_t initiator_seq;
	uint32_t responder_seq;
	uint8_t unused[20];
};

#define NOTE_LEN (2 * sizeof(struct note))

struct punch {
	struct punchd_flow flow;
	uint32_t snd_nxt;
	uint32_t rcv_nxt;
	int fd;
	char id[ID_MAX];
};

struct line {
	char text[128 + NOTE_LEN];
	int len;
	int fd;                 /* -1: none */
};

struct floor {
	struct punchd_flows *flows;
	struct punchd_ring *ring;
	int epoll, raw, listener, client;
	unsigned int begun, open;       /* punches, in all and now */
	char input[ROOM];
	size_t input_len;
	struct line lines[TURN];
	struct punchd_segment segments[TURN];
	size_t lines_len, segments_len;
	struct punch *punches;          /* PORTS, by local port */
};

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	must(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

static struct line *next_line(struct floor *floor)
{
	must(floor->lines_len < TURN, "room for lines");
	floor->lines[floor->lines_len].fd = -1;
	return &floor->lines[floor->lines_len++];
}

static void tell(struct floor *floor, const struct punch *punch,
		 uint16_t window, uint8_t ttl)
{
	struct punchd_segment *seg = &floor->segments[floor->segments_len++];

	must(floor->segments_len < TURN, "room for segments");
	memset(seg, 0, sizeof(*seg));
	memcpy(seg->src, punch->flow.local, sizeof(seg->src));
	memcpy(seg->dst, punch->flow.remote, sizeof(seg->dst));
	seg->src_port = punch->flow.local_port;
	seg->dst_port = punch->flow.remote_port;
	seg->seq = punch->snd_nxt - 1;
	seg->ack = punch->rcv_nxt;
	seg->window = window;
	seg->family = 4;
	seg->ttl = ttl;
	seg->flags = PUNCHD_ACK;
	seg->options.window_scale = PUNCHD_NO_WINDOW_SCALE;
}

static void make_socket(struct punch *punch)
{
	const struct punchd_repair repair = {
		.flow = punch->flow, .snd_nxt = punch->snd_nxt,
		.rcv_nxt = punch->rcv_nxt, .snd_wnd = 65535, .mss = 1360,
		.window_scale = 7, .sack_permitted = 1,
	};

	punch->fd = punchd_repair_open(&repair);
	must(punch->fd >= 0, "repair");
}

static void hand_over(struct floor *floor, struct punch *punch)
{
	struct line *line = next_line(floor);

	line->len = snprintf(line->text, sizeof(line->text),
			     "{\"id\":\"%s\",\"status\":\"ok\",\"fds\":1,"
			     "\"technique\":\"tcp-midstream\"}\n", punch->id);
	line->fd = punch->fd;
	punchd_flows_drop(floor->flows, &punch->flow);
	punch->id[0] = 0;
	floor->open--;
}

/* The address from which this host sends to @remote; always the same two. */
static void find_local(const uint8_t *remote, uint8_t *local)
{
	static struct sockaddr_in here;         /* asked once */
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = 9 };
	socklen_t len = sizeof(here);
	int fd;

	if (!here.sin_family) {
		memcpy(&there.sin_addr, remote, 4);
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		must(!connect(fd, (void *)&there, sizeof(there)), "route");
		must(!getsockname(fd, (void *)&here, &len), "getsockname");
		close(fd);
	}
	memcpy(local, &here.sin_addr, 4);
}

static struct punch *begin(struct floor *floor, const char *id,
			   const uint8_t *remote, uint16_t local_port,
			   uint16_t remote_port)
{
	struct punch *punch = &floor->punches[(local_port - PORT_LO) % PORTS];

	must(!punch->id[0], "a free port");
	memset(punch, 0, sizeof(*punch));
	memcpy(punch->id, id, strcspn(id, "\""));
	memcpy(punch->flow.remote, remote, 4);
	find_local(remote, punch->flow.local);
	punch->flow.local_port = local_port;
	punch->flow.remote_port = remote_port;
	punch->flow.family = 4;
	punch->flow.protocol = IPPROTO_TCP;
	punch->fd = -1;
	must(!punchd_flows_put(floor->flows, &punch->flow, local_port),
	     "flows");
	floor->open++;
	return punch;
}

/* The value behind @key; every line is one of bench/_client.py's. */
static const char *value(const char *line, const char *key)
{
	const char *found = strstr(line, key);

	must(found != NULL, key);
	return found + strlen(key);
}

static void read_address(const char *text, uint8_t *out)
{
	char copy[INET_ADDRSTRLEN] = { 0 };
	size_t len = strcspn(text, "\"");

	must(len < sizeof(copy), "address");
	memcpy(copy, text, len);
	must(inet_pton(AF_INET, copy, out) == 1, "address");
}

static void initiate(struct floor *floor, const char *id, const char *line)
{
	const unsigned int n = floor->begun++;
	struct note note = {
		.initiator_port = (uint16_t)(PORT_LO + n % PORTS),
		.responder_port = (uint16_t)(PORT_LO + (n + n / PORTS) % PORTS),
		.initiator_seq = n * 2654435761U,       /* anybody's guess */
		.responder_seq = ~n * 2654435761U,
	};
	const uint8_t *bytes = (const uint8_t *)&note;
	struct line *told = next_line(floor);
	struct punch *punch;
	uint8_t peer[4];
	char text[NOTE_LEN + 1] = { 0 };
	size_t i;

	read_address(value(line, "\"peer\": \""), peer);
	read_address(value(line, "\"self\": \""), note.initiator);
	punch = begin(floor, id, peer, note.initiator_port,
		      note.responder_port);
	punch->snd_nxt = note.initiator_seq;
	punch->rcv_nxt = note.responder_seq;
	tell(floor, punch, PUNCHD_WINDOW_PRIME, HOLE_TTL);
	for (i = 0; i < sizeof(note); i++) {
		text[2 * i] = (char)('a' + (bytes[i] >> 4));
		text[2 * i + 1] = (char)('a' + (bytes[i] & 15));
	}
	told->len = snprintf(told->text, sizeof(told->text),
			     "{\"id\":\"%s\",\"status\":\"progress\","
			     "\"notification\":\"%s\"}\n", punch->id, text);
}

static void respond(struct floor *floor, const char *id, const char *text)
{
	struct note note;
	uint8_t *bytes = (uint8_t *)&note;
	struct punch *punch;
	size_t i;

	must(strlen(text) >= NOTE_LEN, "notification");
	for (i = 0; i < sizeof(note); i++)
		bytes[i] = (uint8_t)((text[2 * i] - 'a') << 4 |
				     (text[2 * i + 1] - 'a'));
	punch = begin(floor, id, note.initiator, note.responder_port,
		      note.initiator_port);
	punch->snd_nxt = note.responder_seq;
	punch->rcv_nxt = note.initiator_seq;
	make_socket(punch);
	tell(floor, punch, PUNCHD_WINDOW_FIRE, FULL_TTL);
}

static void request(struct floor *floor, const char *line)
{
	const char *id = value(line, "\"id\":\"");

	must(strcspn(id, "\"") < ID_MAX, "id");
	if (strstr(line, "\"initiate\""))
		initiate(floor, id, line);
	else
		respond(floor, id, value(line, "\"notification\":\""));
}

static void read_client(struct floor *floor)
{
	const ssize_t n = recv(floor->client,
			       floor->input + floor->input_len,
			       ROOM - floor->input_len, MSG_DONTWAIT);
	char *line = floor->input, *end;

	if (n <= 0) {
		close(floor->client);
		floor->client = -1;
		floor->input_len = 0;
		return;
	}
	floor->input_len += (size_t)n;
	while ((end = memchr(line, '\n', floor->input_len))) {
		*end = 0;
		request(floor, line);
		floor->input_len -= (size_t)(end + 1 - line);
		line = end + 1;
	}
	memmove(floor->input, line, floor->input_len);
}

static void heard(struct floor *floor, const struct punchd_record *record)
{
	struct punch *punch = &floor->punches[record->token - PORT_LO];

	if (record->kind != PUNCHD_RECORD_SEGMENT || record->outgoing)
		return;
	if (record->segment.window == PUNCHD_WINDOW_FIRE) {
		make_socket(punch);
		tell(floor, punch, PUNCHD_WINDOW_ANSWER, FULL_TTL);
		return;
	}
	if (record->segment.window == PUNCHD_WINDOW_ANSWER)
		tell(floor, punch, PUNCHD_WINDOW_COMMIT, FULL_TTL);
	hand_over(floor, punch);
}

static void drain(struct floor *floor)
{
	static struct punchd_record records[RECORDS];
	int n = punchd_ring_drain(floor->ring, floor->flows, records, RECORDS);

	for (int i = 0; i < n; i++)
		heard(floor, &records[i]);
}

/* Lines up to the first descriptor leave in one call (PROTOCOL.md). */
static void say(struct floor *floor)
{
	static struct iovec parts[TURN];
	char room[CMSG_SPACE(sizeof(int))];
	size_t i = 0, n;
	int fd;

	while (i < floor->lines_len) {
		struct msghdr msg = { .msg_iov = parts };

		for (n = 0, fd = -1; i < floor->lines_len && fd < 0 &&
		     n < 256; n++, i++) {
			parts[n].iov_base = floor->lines[i].text;
			parts[n].iov_len = (size_t)floor->lines[i].len;
			fd = floor->lines[i].fd;
		}
		msg.msg_iovlen = n;
		if (fd >= 0) {
			struct cmsghdr *rights = (struct cmsghdr *)room;

			rights->cmsg_len = CMSG_LEN(sizeof(int));
			rights->cmsg_level = SOL_SOCKET;
			rights->cmsg_type = SCM_RIGHTS;
			memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
			msg.msg_control = room;
			msg.msg_controllen = sizeof(room);
		}
		must(sendmsg(floor->client, &msg, MSG_NOSIGNAL) > 0, "lines");
		if (fd >= 0)
			close(fd);
	}
	floor->lines_len = 0;
}

static void serve(struct floor *floor)
{
	struct epoll_event events[8];
	int n, i;

	for (;;) {
		n = epoll_wait(floor->epoll, events, 8,
			       floor->open ? PATIENCE_MS : -1);
		must(n != 0, "something was lost");
		for (i = 0; i < n; i++) {
			if (events[i].data.fd == floor->client) {
				read_client(floor);
			} else if (events[i].data.fd == floor->listener) {
				floor->client = accept(floor->listener, NULL,
						       NULL);
				must(floor->client >= 0, "accept");
				watch(floor->epoll, floor->client);
			} else {
				drain(floor);
			}
		}
		must(punchd_send_segments(floor->raw, floor->segments,
					  floor->segments_len) ==
		     (int)floor->segments_len, "segments");
		floor->segments_len = 0;
		say(floor);
	}
}

int main(int argc, char **argv)
{
	struct floor *floor = calloc(1, sizeof(*floor));
	struct sockaddr_un here = { .sun_family = AF_UNIX };

	must(floor && (floor->punches = calloc(PORTS, sizeof(struct punch))),
	     "memory");
	floor->client = -1;
	must(argc > 2 && !strcmp(argv[argc - 2], "--socket") &&
	     strlen(argv[argc - 1]) < sizeof(here.sun_path), "usage");
	memcpy(here.sun_path, argv[argc - 1], strlen(argv[argc - 1]));
	must((floor->flows = punchd_flows_new(4 * PORTS)) != NULL, "flows");
	must(!punchd_ring_open(PORT_LO, PORT_LO + PORTS - 1, 0, FRAMES,
			       &floor->ring), "ring");
	must(!punchd_ring_sift(floor->ring, floor->flows), "sieve");
	must((floor->raw = punchd_raw_open()) >= 0, "raw socket");
	floor->epoll = epoll_create1(0);
	floor->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	must(!bind(floor->listener, (void *)&here, sizeof(here)), "bind");
	must(!listen(floor->listener, 8), "listen");
	watch(floor->epoll, floor->listener);
	watch(floor->epoll, punchd_ring_fd(floor->ring));
	serve(floor);
}

/* SPDX-License-Identifier: MIT */
/* delayline.c - a piece of long wire: forwards frames between two interfaces, late, and not all of them.
 * It refuses to read what it carries, to reorder unless told so, and to outlive its parent.
 *
 * usage: delayline LEFT RIGHT DELAY_NS JITTER_NS LOSS REORDER DUPLICATE SEED
 *
 * Theory: each direction is one lane. A frame gets its due time when it is
 * read: now + delay + a share of jitter, but never before the frame ahead of
 * it, so jitter alone keeps the order. A reordered frame is held back
 * REORDER_NS more and does not hold others. Due frames leave in bursts. A lane
 * that is full drops, as a router's queue does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX 2048
#define LANE_FRAMES 32768	/* touched only when used */
#define BURST 64
#define SOCKET_BUFFER (32 << 20)
#define REORDER_NS 2000000
#define NS_PER_S 1000000000ULL

struct wire {
	uint64_t delay_ns;
	uint64_t jitter_ns;
	double loss;
	double reorder;
	double duplicate;
	uint64_t random;
};

struct due {
	uint64_t at_ns;
	uint64_t order;		/* ties leave as they came */
	uint32_t frame;
	uint32_t len;
};

struct lane {
	struct due *heap;
	uint32_t *spare;	/* stack of unused frames */
	uint8_t *frames;
	uint64_t last_ns;
	uint64_t order;
	size_t n_due;
	size_t n_spare;
	int in;
	int out;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* xorshift64*: good enough for dice, and the same for the same seed */
static double chance(struct wire *wire)
{
	wire->random ^= wire->random >> 12;
	wire->random ^= wire->random << 25;
	wire->random ^= wire->random >> 27;
	return (double)((wire->random * 0x2545F4914F6CDD1DULL) >> 11) / 9007199254740992.0;
}

static bool earlier(const struct due *one, const struct due *other)
{
	if (one->at_ns != other->at_ns)
		return one->at_ns < other->at_ns;
	return one->order < other->order;
}

static void heap_push(struct lane *lane, struct due due)
{
	size_t i = lane->n_due++;

	while (i > 0 && earlier(&due, &lane->heap[(i - 1) / 2])) {
		lane->heap[i] = lane->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	lane->heap[i] = due;
}

static struct due heap_pop(struct lane *lane)
{
	struct due first = lane->heap[0];
	struct due last = lane->heap[--lane->n_due];
	size_t i = 0;

	for (;;) {
		size_t child = 2 * i + 1;

		if (child >= lane->n_due)
			break;
		if (child + 1 < lane->n_due &&
		    earlier(&lane->heap[child + 1], &lane->heap[child]))
			child++;
		if (!earlier(&lane->heap[child], &last))
			break;
		lane->heap[i] = lane->heap[child];
		i = child;
	}
	lane->heap[i] = last;
	return first;
}

static uint64_t due_at(struct lane *lane, struct wire *wire, uint64_t now)
{
	uint64_t at = now + wire->delay_ns;

	if (wire->jitter_ns)
		at += (uint64_t)(chance(wire) * (double)wire->jitter_ns);
	if (at < lane->last_ns)
		at = lane->last_ns;
	if (wire->reorder > 0 && chance(wire) < wire->reorder)
		return at + REORDER_NS;
	lane->last_ns = at;
	return at;
}

static void copy_frame(struct lane *lane, struct wire *wire,
		       const struct due *due, uint64_t now)
{
	struct due copy = *due;

	if (lane->n_spare == 0)
		return;
	copy.frame = lane->spare[--lane->n_spare];
	memcpy(lane->frames + (size_t)copy.frame * FRAME_MAX,
	       lane->frames + (size_t)due->frame * FRAME_MAX, due->len);
	copy.at_ns = due_at(lane, wire, now);
	copy.order = lane->order++;
	heap_push(lane, copy);
}

/* Read what has come; true when there may be more. */
static bool lane_read(struct lane *lane, struct wire *wire)
{
	static uint8_t overflow[FRAME_MAX];	/* where frames of a full lane die */
	struct sockaddr_ll from[BURST];
	struct mmsghdr messages[BURST];
	struct iovec parts[BURST];
	uint32_t frames[BURST];
	unsigned int room = lane->n_spare < BURST ? (unsigned int)lane->n_spare : BURST;
	uint64_t now;
	int n;

	memset(messages, 0, sizeof(messages));
	for (unsigned int i = 0; i < BURST; i++) {
		frames[i] = i < room ? lane->spare[lane->n_spare - 1 - i] : UINT32_MAX;
		parts[i].iov_base = i < room ? lane->frames + (size_t)frames[i] * FRAME_MAX : overflow;
		parts[i].iov_len = FRAME_MAX;
		messages[i].msg_hdr = (struct msghdr){
			.msg_name = &from[i], .msg_namelen = sizeof(from[i]),
			.msg_iov = &parts[i], .msg_iovlen = 1,
		};
	}
	n = recvmmsg(lane->in, messages, BURST, MSG_DONTWAIT, NULL);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR && errno != ENETDOWN)
			die("recvmmsg");
		return false;
	}
	now = now_ns();
	lane->n_spare -= room;
	for (unsigned int i = 0; i < room; i++) {
		struct due due = { .frame = frames[i] };

		if (i >= (unsigned int)n || from[i].sll_pkttype == PACKET_OUTGOING ||
		    (messages[i].msg_hdr.msg_flags & MSG_TRUNC) ||
		    chance(wire) < wire->loss) {
			lane->spare[lane->n_spare++] = frames[i];
			continue;
		}
		due.len = messages[i].msg_len;
		due.order = lane->order++;
		due.at_ns = due_at(lane, wire, now);
		heap_push(lane, due);
		if (wire->duplicate > 0 && chance(wire) < wire->duplicate)
			copy_frame(lane, wire, &due, now);
	}
	return n == BURST;
}

static void lane_write(struct lane *lane)
{
	struct mmsghdr messages[BURST];
	struct iovec parts[BURST];
	unsigned int n;

	do {
		uint64_t now = now_ns();

		memset(messages, 0, sizeof(messages));
		for (n = 0; n < BURST && lane->n_due && lane->heap[0].at_ns <= now; n++) {
			struct due due = heap_pop(lane);

			parts[n].iov_base = lane->frames + (size_t)due.frame * FRAME_MAX;
			parts[n].iov_len = due.len;
			messages[n].msg_hdr.msg_iov = &parts[n];
			messages[n].msg_hdr.msg_iovlen = 1;
			/* popped frames are free again: nothing reads before they are sent */
			lane->spare[lane->n_spare++] = due.frame;
		}
		for (unsigned int sent = 0; sent < n;) {
			int done = sendmmsg(lane->out, messages + sent, n - sent, 0);

			if (done < 0 && errno == EINTR)
				continue;
			/* what the interface refuses is lost, as on a wire */
			sent += done > 0 ? (unsigned int)done : 1;
		}
	} while (n == BURST);
}

static int open_wire(const char *interface)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(interface),
	};
	int one = 1, size = SOCKET_BUFFER;
	int fd;

	if (address.sll_ifindex == 0)
		die(interface);
	/* protocol 0: nothing is queued before the socket is bound */
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("socket AF_PACKET");
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0)
		die("PACKET_IGNORE_OUTGOING");
	if (setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one)) < 0)
		die("PACKET_QDISC_BYPASS");
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
		die("SO_RCVBUFFORCE");
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) < 0)
		die("SO_SNDBUFFORCE");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die("bind AF_PACKET");
	return fd;
}

static void *room(size_t n, size_t size)
{
	void *memory = mmap(NULL, n * size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

static void lane_open(struct lane *lane, int in, int out)
{
	*lane = (struct lane){ .in = in, .out = out };
	lane->heap = room(LANE_FRAMES, sizeof(*lane->heap));
	lane->spare = room(LANE_FRAMES, sizeof(*lane->spare));
	lane->frames = room(LANE_FRAMES, FRAME_MAX);
	for (uint32_t i = LANE_FRAMES; i > 0; i--)
		lane->spare[lane->n_spare++] = i - 1;
}

static void sleep_until_due(struct lane *lanes)
{
	struct pollfd polls[2] = {
		{ .fd = lanes[0].in, .events = POLLIN },
		{ .fd = lanes[1].in, .events = POLLIN },
	};
	struct timespec wait, *patience = NULL;
	uint64_t due = UINT64_MAX, now;

	for (int i = 0; i < 2; i++)
		if (lanes[i].n_due && lanes[i].heap[0].at_ns < due)
			due = lanes[i].heap[0].at_ns;
	if (due != UINT64_MAX) {
		now = now_ns();
		due = due > now ? due - now : 0;
		wait.tv_sec = (time_t)(due / NS_PER_S);
		wait.tv_nsec = (long)(due % NS_PER_S);
		patience = &wait;
	}
	if (ppoll(polls, 2, patience, NULL) < 0 && errno != EINTR)
		die("ppoll");
}

int main(int argc, char **argv)
{
	struct wire wire;
	struct lane lanes[2];
	struct sched_param first = { .sched_priority = 10 };
	pid_t parent = getppid();
	int left, right;

	if (argc != 9) {
		fputs("usage: delayline LEFT RIGHT DELAY_NS JITTER_NS LOSS REORDER DUPLICATE SEED\n", stderr);
		return 2;
	}
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_TIMERSLACK, 1) < 0)
		die("prctl");
	if (getppid() != parent)
		return 1;
	/* late frames are wrong delays: go before everybody, where we may */
	if (sched_setscheduler(0, SCHED_FIFO, &first) < 0)
		setpriority(PRIO_PROCESS, 0, -15);
	wire = (struct wire){
		.delay_ns = strtoull(argv[3], NULL, 10),
		.jitter_ns = strtoull(argv[4], NULL, 10),
		.loss = strtod(argv[5], NULL),
		.reorder = strtod(argv[6], NULL),
		.duplicate = strtod(argv[7], NULL),
		.random = strtoull(argv[8], NULL, 10) * 0x9E3779B97F4A7C15ULL + 1,
	};
	left = open_wire(argv[1]);
	right = open_wire(argv[2]);
	lane_open(&lanes[0], left, right);
	lane_open(&lanes[1], right, left);
	if (write(STDOUT_FILENO, "ready\n", 6) != 6)
		die("write");
	for (;;) {
		sleep_until_due(lanes);
		for (int i = 0; i < 2; i++) {
			while (lane_read(&lanes[i], &wire))
				lane_write(&lanes[i]);
			lane_write(&lanes[i]);
		}
	}
}

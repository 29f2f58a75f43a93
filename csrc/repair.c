// SPDX-License-Identifier: MIT
/* repair.c - sockets made ESTABLISHED by TCP_REPAIR, without a packet.
 * It sends nothing but window probes, and chooses no number of a connection.
 *
 * The order is the kernel's: sequence numbers only in CLOSE, options and
 * windows only after connect(), which in repair mode sends nothing and is done
 * at once. Repair mode binds beside any other socket and clears SO_REUSEADDR
 * when it ends (tcp.c, TCP_REPAIR); tests/kernel/test_repair.py proves it.
 */
#define _GNU_SOURCE
#include "punchd.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum repair_mode {
	REPAIR_ON = TCP_REPAIR_ON,
	REPAIR_OFF = TCP_REPAIR_OFF,            /* with a window probe */
	REPAIR_OFF_SILENT = TCP_REPAIR_OFF_NO_WP,
};

enum option_code {      /* TCP option kinds, as TCP_REPAIR_OPTIONS takes them */
	OPTION_MSS = 2,
	OPTION_WINDOW_SCALE = 3,
	OPTION_SACK_PERMITTED = 4,
};

static int set(int fd, int level, int name, const void *value, socklen_t len)
{
	return setsockopt(fd, level, name, value, len) < 0 ? -errno : 0;
}

static int set_int(int fd, int level, int name, int value)
{
	return set(fd, level, name, &value, sizeof(value));
}

static int set_mode(int fd, enum repair_mode mode)
{
	return set_int(fd, IPPROTO_TCP, TCP_REPAIR, (int)mode);
}

static int set_queue(int fd, int queue, uint32_t seq)
{
	int rc = set_int(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue);

	if (rc == 0)
		rc = set(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, &seq, sizeof(seq));
	return rc;
}

static void fill_address(struct sockaddr_in *to, const uint8_t *address,
			 uint16_t port)
{
	memset(to, 0, sizeof(*to));
	to->sin_family = AF_INET;
	to->sin_port = htons(port);
	memcpy(&to->sin_addr, address, sizeof(to->sin_addr));
}

static int bind_and_connect(int fd, const struct punchd_flow *flow)
{
	struct sockaddr_in local, remote;

	fill_address(&local, flow->local, flow->local_port);
	fill_address(&remote, flow->remote, flow->remote_port);
	if (bind(fd, (struct sockaddr *)&local, sizeof(local)) < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&remote, sizeof(remote)) < 0)
		return -errno;
	return 0;
}

/* An absent scale is 0 both ways: left out, ours would be kept unasked. */
static int set_options(int fd, const struct punchd_repair *repair)
{
	const uint32_t scale =
		repair->window_scale == PUNCHD_NO_WINDOW_SCALE ?
		0 : repair->window_scale;
	const struct tcp_repair_opt options[] = {
		{ OPTION_MSS, repair->mss },
		{ OPTION_WINDOW_SCALE, scale << 16 | scale },
		{ OPTION_SACK_PERMITTED, 0 },
	};
	const size_t n = repair->sack_permitted ? 3 : 2;

	return set(fd, IPPROTO_TCP, TCP_REPAIR_OPTIONS, options,
		   (socklen_t)(n * sizeof(*options)));
}

/* Without it the send window is 0 until a probe is answered. */
static int set_window(int fd, const struct punchd_repair *repair)
{
	struct tcp_repair_window window;
	socklen_t len = sizeof(window);

	if (getsockopt(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window, &len) < 0)
		return -errno;
	window.snd_wl1 = repair->rcv_nxt;
	window.snd_wnd = repair->snd_wnd;
	window.max_window = repair->snd_wnd;
	window.rcv_wup = repair->rcv_nxt;       /* rcv_wnd: as proposed */
	return set(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window,
		   sizeof(window));
}

/* No IP_MINTTL: to a connection a time-exceeded is a hint, and one that quotes
 * what punchd sends, before SND.UNA, is not even that (tcp_ipv4.c, tcp_v4_err).
 */
static int establish(int fd, const struct punchd_repair *repair)
{
	int rc = 0;

	if (repair->ttl)
		rc = set_int(fd, IPPROTO_IP, IP_TTL, repair->ttl);
	if (rc == 0)
		rc = set_mode(fd, REPAIR_ON);
	if (rc == 0)
		rc = set_queue(fd, TCP_SEND_QUEUE, repair->snd_nxt);
	if (rc == 0)
		rc = set_queue(fd, TCP_RECV_QUEUE, repair->rcv_nxt);
	if (rc == 0)
		rc = bind_and_connect(fd, &repair->flow);
	if (rc == 0)
		rc = set_options(fd, repair);
	if (rc == 0)
		rc = set_window(fd, repair);
	if (rc == 0)
		rc = set_mode(fd, repair->probe ?
			      REPAIR_OFF : REPAIR_OFF_SILENT);
	return rc;
}

int punchd_repair_open(const struct punchd_repair *repair)
{
	int fd, rc;

	if (repair->flow.family == 6)
		return -EAFNOSUPPORT;
	if (repair->flow.family != 4 || repair->flow.protocol != IPPROTO_TCP)
		return -EINVAL;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	rc = establish(fd, repair);
	if (rc < 0) {
		close(fd);      /* still in repair mode: nothing is sent */
		return rc;
	}
	return fd;
}

int punchd_repair_drop(int fd)
{
	int rc = set_mode(fd, REPAIR_ON);

	close(fd);      /* in any case: half a drop would be a leak */
	return rc;
}

int punchd_repair_probe(int fd)
{
	socklen_t len = sizeof(int);
	int reuse = 0, rc;

	if (getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, &len) < 0)
		return -errno;
	rc = set_mode(fd, REPAIR_ON);
	if (rc == 0)
		rc = set_mode(fd, REPAIR_OFF);
	if (rc == 0 && reuse)
		rc = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	return rc;
}

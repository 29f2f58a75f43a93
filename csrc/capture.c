// SPDX-License-Identifier: MIT
/* capture.c - the one mmap'd AF_PACKET ring: what its filter keeps.
 * It parses nothing (frame.c does) and knows no attempt.
 *
 * TPACKET_V2, for it wakes the reader per frame where V3 waits for its block's
 * timer: docs/decisions/0001-ring-version.md has the figures. The kernel fills
 * slots in turn and hands each over by its status word; we read in the same
 * turn, from @position, and hand back at once. The descriptor stays readable
 * while the slot filled last is ours (packet_poll()), so a drain that stops at
 * its limit is woken again, and a drained ring is silent.
 */
#define _GNU_SOURCE
#include "frame.h"
#include "sift.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOT_LEN 256
#define FRAMES_MAX (1U << 20)

/* tpacket_rcv() of SOCK_DGRAM: header and address, aligned, 16 bytes, data. */
_Static_assert(sizeof(struct tpacket2_hdr) + sizeof(struct sockaddr_ll) +
	       TPACKET_ALIGNMENT + 16 + PUNCHD_SEGMENT_MAX <= SLOT_LEN,
	       "a slot holds what the filter keeps");

struct punchd_ring {
	uint8_t *map;
	size_t map_len;
	uint64_t drops;
	uint32_t frames;
	uint32_t position;      /* the slot to be read next */
	int fd;
	uint16_t insns_len;
	struct punchd_insn insns[PUNCHD_FILTER_MAX];
	struct punchd_flows *sifting;   /* NULL: every kept frame wakes us */
	struct punchd_sieve sieve;
};

static int ring_filter(struct punchd_ring *ring, uint16_t port_lo,
		       uint16_t port_hi, uint8_t hole_ttl)
{
	int n = punchd_filter_ring(port_lo, port_hi, hole_ttl, ring->insns,
				   PUNCHD_FILTER_MAX);

	if (n < 0)
		return -EINVAL;
	ring->insns_len = (uint16_t)n;
	return punchd_filter_attach(ring->fd, ring->insns, (size_t)n);
}

static int ring_map(struct punchd_ring *ring, uint32_t frames)
{
	const uint32_t block = (uint32_t)sysconf(_SC_PAGESIZE);
	const uint32_t per_block = block / SLOT_LEN;
	const int version = TPACKET_V2;
	struct tpacket_req req = { 0 };
	void *map;

	req.tp_block_size = block;
	req.tp_block_nr = (frames + per_block - 1) / per_block;
	req.tp_frame_size = SLOT_LEN;
	req.tp_frame_nr = req.tp_block_nr * per_block;
	if (setsockopt(ring->fd, SOL_PACKET, PACKET_VERSION, &version,
		       sizeof(version)) < 0)
		return -errno;
	if (setsockopt(ring->fd, SOL_PACKET, PACKET_RX_RING, &req,
		       sizeof(req)) < 0)
		return -errno;
	map = mmap(NULL, (size_t)req.tp_frame_nr * SLOT_LEN,
		   PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	ring->map = map;
	ring->map_len = (size_t)req.tp_frame_nr * SLOT_LEN;
	ring->frames = req.tp_frame_nr;
	return 0;
}

/* All protocols: ETH_P_IP alone is not shown what goes out. */
static int ring_bind(int fd)
{
	struct sockaddr_ll everywhere = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
	};

	if (bind(fd, (struct sockaddr *)&everywhere, sizeof(everywhere)) < 0)
		return -errno;
	return 0;
}

int punchd_ring_open(uint16_t port_lo, uint16_t port_hi, uint8_t hole_ttl,
		     uint32_t frames, struct punchd_ring **out)
{
	struct punchd_ring *ring;
	int rc;

	if (frames == 0 || frames > FRAMES_MAX)
		return -EINVAL;
	ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	/* protocol 0 sees nothing: no frame slips in before the filter */
	ring->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
			  0);
	if (ring->fd < 0) {
		rc = -errno;
		free(ring);
		return rc;
	}
	rc = ring_filter(ring, port_lo, port_hi, hole_ttl);
	if (rc == 0)
		rc = ring_map(ring, frames);
	if (rc == 0)
		rc = ring_bind(ring->fd);
	if (rc < 0) {
		punchd_ring_close(ring);
		return rc;
	}
	*out = ring;
	return 0;
}

int punchd_ring_sift(struct punchd_ring *ring, struct punchd_flows *flows)
{
	int rc;

	if (ring->sifting)
		return -EBUSY;
	rc = punchd_sift_open(ring->fd, ring->insns, ring->insns_len,
			      &ring->sieve);
	if (rc < 0)
		return rc;
	ring->sifting = flows;
	punchd_flows_sift(flows, &ring->sieve);
	return 0;
}

void punchd_ring_close(struct punchd_ring *ring)
{
	if (!ring)
		return;
	if (ring->map)
		munmap(ring->map, ring->map_len);
	close(ring->fd);
	if (ring->sifting) {
		punchd_flows_sift(ring->sifting, NULL);
		punchd_sift_close(&ring->sieve);
	}
	free(ring);
}

int punchd_ring_fd(const struct punchd_ring *ring)
{
	return ring->fd;
}

int punchd_ring_drain(struct punchd_ring *ring, struct punchd_flows *flows,
		      struct punchd_record *out, size_t out_len)
{
	size_t taken = 0;
	uint32_t seen;

	if (out_len > INT32_MAX)
		return -EINVAL;
	/* one turn at most: a flood of foreign frames must not hold us here */
	for (seen = 0; seen < ring->frames && taken < out_len; seen++) {
		uint8_t *slot = ring->map + (size_t)ring->position * SLOT_LEN;
		uint32_t *status = (uint32_t *)(void *)
			(slot + offsetof(struct tpacket2_hdr, tp_status));

		if (!(__atomic_load_n(status, __ATOMIC_ACQUIRE) &
		      TP_STATUS_USER))
			break;
		taken += (size_t)punchd_frame_read(slot, SLOT_LEN, flows,
						   &out[taken]);
		__atomic_store_n(status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		ring->position = (ring->position + 1) % ring->frames;
	}
	return (int)taken;
}

int punchd_ring_drops(struct punchd_ring *ring, uint64_t *drops)
{
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);

	/* the kernel counts from zero again after each question */
	if (getsockopt(ring->fd, SOL_PACKET, PACKET_STATISTICS, &stats,
		       &len) < 0)
		return -errno;
	ring->drops += stats.tp_drops;
	*drops = ring->drops;
	return 0;
}

int punchd_ring_detach(struct punchd_ring *ring)
{
	const struct punchd_insn nothing[] = {
		/* keep nothing */
		{ .code = BPF_RET | BPF_K, .k = 0 },
	};

	return punchd_filter_attach(ring->fd, nothing, 1);
}

// SPDX-License-Identifier: MIT
/* ring_wakeup.c - how long a frame lies in a ring before poll() tells.
 * It only measures; bench/ring_wakeup.py feeds it and prints the table.
 *
 * Usage: ring_wakeup VERSION BLOCK_BYTES FRAMES
 * Reads FRAMES frames and prints for each the nanoseconds from the kernel's
 * time stamp to the moment the reader had it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define RING_BYTES (1 << 20)
#define SLOT_BYTES 256
#define PATIENCE_MS 2000

static long wanted;
static int fd;

static void must(int ok, const char *what)
{
	if (!ok) {
		perror(what);
		exit(1);
	}
}

static void took(uint32_t sec, uint32_t nsec)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	printf("%lld\n", (long long)(now.tv_sec - (time_t)sec) * 1000000000 +
	       now.tv_nsec - (long long)nsec);
	if (--wanted == 0)
		exit(0);
}

static void wait_for_frames(void)
{
	struct pollfd poller = { .fd = fd, .events = POLLIN };

	must(poll(&poller, 1, PATIENCE_MS) == 1, "poll");
}

static void read_v2(uint8_t *map)
{
	uint32_t at = 0;

	for (;;) {
		struct tpacket2_hdr *hdr =
			(void *)(map + (size_t)at * SLOT_BYTES);

		if (!(__atomic_load_n(&hdr->tp_status, __ATOMIC_ACQUIRE) &
		      TP_STATUS_USER)) {
			wait_for_frames();
			continue;
		}
		took(hdr->tp_sec, hdr->tp_nsec);
		__atomic_store_n(&hdr->tp_status, TP_STATUS_KERNEL,
				 __ATOMIC_RELEASE);
		at = (at + 1) % (RING_BYTES / SLOT_BYTES);
	}
}

static void read_v3(uint8_t *map, uint32_t block_bytes)
{
	uint32_t at = 0, i;

	for (;;) {
		struct tpacket_block_desc *block =
			(void *)(map + (size_t)at * block_bytes);
		uint32_t *status = &block->hdr.bh1.block_status;
		uint8_t *frame;

		if (!(__atomic_load_n(status, __ATOMIC_ACQUIRE) &
		      TP_STATUS_USER)) {
			wait_for_frames();
			continue;
		}
		frame = (uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
		for (i = 0; i < block->hdr.bh1.num_pkts; i++) {
			struct tpacket3_hdr *hdr = (void *)frame;

			took(hdr->tp_sec, hdr->tp_nsec);
			frame += hdr->tp_next_offset;
		}
		__atomic_store_n(status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
		at = (at + 1) % (RING_BYTES / block_bytes);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_ll link = { .sll_family = AF_PACKET,
				    .sll_protocol = htons(ETH_P_IP) };
	struct tpacket_req3 req = { 0 };
	uint32_t block_bytes;
	int version;
	uint8_t *map;

	must(argc == 4, "usage");
	version = atoi(argv[1]) == 3 ? TPACKET_V3 : TPACKET_V2;
	block_bytes = (uint32_t)atoi(argv[2]);
	wanted = atol(argv[3]);
	fd = socket(AF_PACKET, SOCK_DGRAM, 0);
	must(fd >= 0, "socket");
	must(!setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version,
			 sizeof(version)), "PACKET_VERSION");
	req.tp_block_size = block_bytes;
	req.tp_block_nr = RING_BYTES / block_bytes;
	req.tp_frame_size = SLOT_BYTES;
	req.tp_frame_nr = RING_BYTES / SLOT_BYTES;
	req.tp_retire_blk_tov = 1;      /* ms, the least there is */
	must(!setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req,
			 version == TPACKET_V3 ? sizeof(req) :
			 sizeof(struct tpacket_req)), "PACKET_RX_RING");
	map = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(map != MAP_FAILED, "mmap");
	must(!bind(fd, (struct sockaddr *)&link, sizeof(link)), "bind");
	fprintf(stderr, "ready\n");
	if (version == TPACKET_V3)
		read_v3(map, block_bytes);
	else
		read_v2(map);
}

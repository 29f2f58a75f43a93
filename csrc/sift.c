// SPDX-License-Identifier: MIT
/* sift.c - bpf(2): the sieve's counts shared with the kernel, its program.
 * It reads no packet and writes no instruction (sieve.c does).
 */
#define _GNU_SOURCE
#include "sift.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bpf(enum bpf_cmd command, union bpf_attr *attr)
{
	long rc = syscall(SYS_bpf, command, attr, sizeof(*attr));

	return rc < 0 ? -errno : (int)rc;
}

/* One value that we map: counts change without a system call. */
static int map_open(uint16_t **counts)
{
	union bpf_attr attr;
	void *map;
	int fd, rc;

	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_ARRAY;
	attr.key_size = sizeof(uint32_t);
	attr.value_size = PUNCHD_SIEVE_LEN;
	attr.max_entries = 1;
	attr.map_flags = BPF_F_MMAPABLE;
	fd = bpf(BPF_MAP_CREATE, &attr);
	if (fd < 0)
		return fd;
	map = mmap(NULL, PUNCHD_SIEVE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
		   fd, 0);
	if (map == MAP_FAILED) {
		rc = -errno;
		close(fd);
		return rc;
	}
	*counts = map;
	return fd;
}

static int program_load(const struct bpf_insn *insns, size_t n)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
	attr.insns = (uintptr_t)insns;
	attr.insn_cnt = (uint32_t)n;
	attr.license = (uintptr_t)"MIT";
	return bpf(BPF_PROG_LOAD, &attr);
}

static int attach(int fd, const struct punchd_insn *filter, size_t filter_len,
		  uint32_t seed, int map_fd)
{
	struct bpf_insn insns[PUNCHD_SIEVE_INSNS];
	int n, program, rc = 0;

	n = punchd_sieve_program(filter, filter_len, seed, map_fd, insns,
				 PUNCHD_SIEVE_INSNS);
	if (n < 0)
		return -EINVAL;
	program = program_load(insns, (size_t)n);
	if (program < 0)
		return program;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_BPF, &program,
		       sizeof(program)) < 0)
		rc = -errno;
	close(program);
	return rc;
}

int punchd_sift_open(int fd, const struct punchd_insn *filter,
		     size_t filter_len, struct punchd_sieve *sieve)
{
	struct punchd_sieve made;
	int map_fd, rc;

	if (getrandom(&made.seed, sizeof(made.seed), 0) !=
	    (ssize_t)sizeof(made.seed))
		return -EIO;
	map_fd = map_open(&made.counts);
	if (map_fd < 0)
		return map_fd;
	rc = attach(fd, filter, filter_len, made.seed, map_fd);
	close(map_fd);  /* the mapping and the program keep the map */
	if (rc < 0)
		munmap(made.counts, PUNCHD_SIEVE_LEN);
	else
		*sieve = made;
	return rc;
}

void punchd_sift_close(struct punchd_sieve *sieve)
{
	munmap(sieve->counts, PUNCHD_SIEVE_LEN);
	sieve->counts = NULL;
}

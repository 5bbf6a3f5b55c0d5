/* SPDX-License-Identifier: BSD-2-Clause */
/* A control group of the program's own, in the machine's cgroup2, and a connect hook that does as it is told. */
#ifndef FACT_CGROUP_H
#define FACT_CGROUP_H

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "fact.h"

/* Where cgroup2 is mounted in our mount namespace. */
#define FACT_CGROUP2 "/sys/fs/cgroup"

static char fact_group[64];
static char fact_home[4200]; /* cgroup.procs of the group that we came from */

static inline void fact_cgroup_leave(void)
{
	fact_write(fact_home, "0");
}

static inline void fact_cgroup_enter(void)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.procs", fact_group);
	fact_write(path, "0");
}

static inline void fact_cgroup_end(void)
{
	fact_cgroup_leave();
	rmdir(fact_group);
}

/* After fact_init(). The group goes when the program ends by exit(). */
static inline void fact_cgroup_init(void)
{
	char line[4096];
	FILE *f;

	/* EBUSY: it is there already. */
	if (mount("none", FACT_CGROUP2, "cgroup2", 0, NULL) && errno != EBUSY) {
		fact_skip("everything", "no cgroup2 here: %s", strerror(errno));
		exit(0);
	}
	f = fopen("/proc/self/cgroup", "r");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::", 3))
			snprintf(fact_home, sizeof(fact_home), FACT_CGROUP2 "%s/cgroup.procs",
				 line + 3);
	}
	if (f)
		fclose(f);
	snprintf(fact_group, sizeof(fact_group), FACT_CGROUP2 "/slab-fact-%d", (int)getpid());
	MUST(mkdir(fact_group, 0755));
	atexit(fact_cgroup_end);
}

static inline void fact_cgroup_attach(int prog, enum bpf_attach_type type)
{
	int fd = MUST(open(fact_group, O_RDONLY | O_DIRECTORY | O_CLOEXEC));

	/* Lasts until the group goes. */
	MUST(bpf_prog_attach(prog, fd, type, 0));
	close(fd);
}

/* What the connect hook is told, and tells, in cells. */
enum {
	HOOK_RUNS,  /* how often it has run */
	HOOK_PORT,  /* bind the socket to this port (network byte order), 0: don't */
	HOOK_ADDR,  /* and to this address */
	HOOK_BOUND, /* what bpf_bind() said */
	HOOK_REUSE, /* 1: SO_REUSEADDR on before */
	HOOK_DENY,  /* refuse with this errno, 0: don't */
};

static inline void fact_hook_new(const struct fact_cells *cells)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_CGROUP_INET4_CONNECT);
	struct bpf_insn insns[] = {
		BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
		BPF_LD_MAP_VALUE(BPF_REG_7, cells->fd, 0),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_7, BPF_REG_2, 0),
		/* setsockopt(SOL_SOCKET, SO_REUSEADDR, 1) */
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7, 8 * HOOK_REUSE),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_1, 0, 8),
		BPF_ST_MEM(BPF_W, BPF_REG_10, -4, 1),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_MOV64_IMM(BPF_REG_2, SOL_SOCKET),
		BPF_MOV64_IMM(BPF_REG_3, SO_REUSEADDR),
		BPF_MOV64_REG(BPF_REG_4, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_4, -4),
		BPF_MOV64_IMM(BPF_REG_5, 4),
		BPF_CALL_FUNC(BPF_FUNC_setsockopt),
		/* bpf_bind() */
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7, 8 * HOOK_PORT),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_1, 0, 11),
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -8, 0),
		BPF_ST_MEM(BPF_H, BPF_REG_10, -16, AF_INET),
		BPF_STX_MEM(BPF_H, BPF_REG_10, BPF_REG_1, -14),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7, 8 * HOOK_ADDR),
		BPF_STX_MEM(BPF_W, BPF_REG_10, BPF_REG_1, -12),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -16),
		BPF_MOV64_IMM(BPF_REG_3, 16),
		BPF_CALL_FUNC(BPF_FUNC_bind),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_0, 8 * HOOK_BOUND),
		/* The verdict. */
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7, 8 * HOOK_DENY),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_1, 0, 4),
		BPF_ALU64_IMM(BPF_MUL, BPF_REG_1, -1),
		BPF_CALL_FUNC(BPF_FUNC_set_retval),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
		BPF_MOV64_IMM(BPF_REG_0, 1),
		BPF_EXIT_INSN(),
	};

	fact_cgroup_attach(fact_prog_opts(BPF_PROG_TYPE_CGROUP_SOCK_ADDR, insns,
					  sizeof(insns) / sizeof(insns[0]), &opts),
			   BPF_CGROUP_INET4_CONNECT);
}

/* A hook of sockets (post_bind, sock_release) that counts its runs in a cell, and refuses with the errno of another one (-1: never). */
static inline void fact_sock_hook_new(const struct fact_cells *cells, enum bpf_attach_type type,
				      int count, int deny)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = type);
	struct bpf_insn counts[] = {
		BPF_LD_MAP_VALUE(BPF_REG_7, cells->fd, 0),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_7, BPF_REG_2, (int16_t)(8 * count)),
		BPF_MOV64_IMM(BPF_REG_0, 1),
		BPF_EXIT_INSN(),
	};
	struct bpf_insn judges[] = {
		BPF_LD_MAP_VALUE(BPF_REG_7, cells->fd, 0),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_7, BPF_REG_2, (int16_t)(8 * count)),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_7, (int16_t)(8 * deny)),
		BPF_MOV64_IMM(BPF_REG_0, 1),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_1, 0, 3),
		BPF_ALU64_IMM(BPF_MUL, BPF_REG_1, -1),
		BPF_CALL_FUNC(BPF_FUNC_set_retval),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
	};
	bool plain = deny < 0;

	fact_cgroup_attach(fact_prog_opts(BPF_PROG_TYPE_CGROUP_SOCK, plain ? counts : judges,
					  plain ? sizeof(counts) / sizeof(counts[0])
						: sizeof(judges) / sizeof(judges[0]),
					  &opts),
			   type);
}

#endif

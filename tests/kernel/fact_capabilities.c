/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CAP_BPF and CAP_NET_ADMIN are enough to make the kinds of maps that the daemon uses, to load TC and syscall programs,
 * attach, pin, and run the sweep. A program that adds a variable to a packet pointer, as one that skips IP options
 * does, wants CAP_PERFMON too: without it the verifier must reckon with speculation ("pointer arithmetic with it
 * prohibited for !root"). Without CAP_BPF the kernel refuses.
 */
#include <cap-ng.h>
#include <stddef.h>
#include <sys/wait.h>

#include "fact.h"

static int make_map(enum bpf_map_type type, uint32_t key, uint32_t value, uint32_t n,
		    uint32_t flags)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = flags);

	return bpf_map_create(type, "caps", key, value, n, &opts);
}

/* Keep CAP_NET_ADMIN and the capabilities named, up to -1. */
static void drop_to(int cap, ...)
{
	va_list ap;

	capng_clear(CAPNG_SELECT_CAPS);
	capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_NET_ADMIN);
	va_start(ap, cap);
	for (; cap != -1; cap = va_arg(ap, int))
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, (unsigned)cap);
	va_end(ap);
	MUST(capng_apply(CAPNG_SELECT_CAPS));
}

/* Reads the byte that lies as many bytes into the packet as its first byte says, if the packet is that long. */
static int load_variable(void)
{
	struct bpf_insn insns[] = {
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_1, offsetof(struct __sk_buff, data)),
		BPF_LDX_MEM(BPF_W, BPF_REG_3, BPF_REG_1, offsetof(struct __sk_buff, data_end)),
		BPF_MOV64_REG(BPF_REG_4, BPF_REG_2),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_4, 1),
		BPF_INSN(BPF_JMP | BPF_JGT | BPF_X, BPF_REG_4, BPF_REG_3, 6, 0),
		BPF_LDX_MEM(BPF_B, BPF_REG_5, BPF_REG_2, 0),
		BPF_INSN(BPF_ALU64 | BPF_ADD | BPF_X, BPF_REG_2, BPF_REG_5, 0, 0),
		BPF_MOV64_REG(BPF_REG_4, BPF_REG_2),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_4, 1),
		BPF_INSN(BPF_JMP | BPF_JGT | BPF_X, BPF_REG_4, BPF_REG_3, 1, 0),
		BPF_LDX_MEM(BPF_B, BPF_REG_0, BPF_REG_2, 0),
		BPF_EXIT_INSN(),
	};

	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "variable", "Dual BSD/GPL", insns,
			     sizeof(insns) / sizeof(insns[0]), NULL);
}

static int child_with_both(void)
{
	struct bpf_insn insns[] = { BPF_MOV64_IMM(BPF_REG_0, 0), BPF_EXIT_INSN() };
	LIBBPF_OPTS(bpf_prog_load_opts, sleepable, .prog_flags = BPF_F_SLEEPABLE);
	LIBBPF_OPTS(bpf_test_run_opts, run);
	int tc, sys, link;
	bool maps;

	drop_to(CAP_BPF, -1);
	maps = make_map(BPF_MAP_TYPE_HASH, 40, 40, 64, 0) >= 0 &&
	       make_map(BPF_MAP_TYPE_LPM_TRIE, 24, 4, 64, BPF_F_NO_PREALLOC) >= 0 &&
	       make_map(BPF_MAP_TYPE_LRU_HASH, 24, 8, 64, 0) >= 0 &&
	       make_map(BPF_MAP_TYPE_ARRAY, 4, 64, 1, BPF_F_MMAPABLE) >= 0 &&
	       make_map(BPF_MAP_TYPE_PERCPU_ARRAY, 4, 16, 64, 0) >= 0 &&
	       make_map(BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0) >= 0;
	fact_check(maps, "capabilities_maps", "%s", strerror(errno));

	tc = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "tc", "Dual BSD/GPL", insns, 2, NULL);
	fact_check(tc >= 0, "capabilities_tc", "%s", strerror(errno));
	sys = bpf_prog_load(BPF_PROG_TYPE_SYSCALL, "sys", "Dual BSD/GPL", insns, 2, &sleepable);
	fact_check(sys >= 0 && !bpf_prog_test_run_opts(sys, &run), "capabilities_syscall", "%s",
		   strerror(errno));

	link = fact_tcx(tc, "lo", "capabilities_attach");
	if (link >= 0)
		fact_check(!bpf_obj_pin(link, FACT_BPFFS "/caps"), "capabilities_attach", "%s",
			   strerror(errno));
	else
		fact_clsact(tc, "lo");
	return fact_end();
}

static int child_with_perfmon(void)
{
	int fd;

	drop_to(CAP_BPF, CAP_PERFMON, -1);
	fd = load_variable();
	fact_check(fd >= 0, "capabilities_variable_offset", "%s", strerror(-fd));
	drop_to(CAP_BPF, -1);
	fd = load_variable();
	printf("# without CAP_PERFMON: %s\n", fd >= 0 ? "loads as well" : strerror(-fd));
	return fact_end();
}

static int child_without_bpf(void)
{
	struct bpf_insn insns[] = { BPF_MOV64_IMM(BPF_REG_0, 0), BPF_EXIT_INSN() };
	int fd;

	drop_to(-1);
	fd = bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "tc", "Dual BSD/GPL", insns, 2, NULL);
	fact_check(fd == -EPERM, "capabilities_needed", "loading without CAP_BPF returned %d", fd);
	return fact_end();
}

static void run_child(int (*child)(void))
{
	int status;
	pid_t pid = MUST(fork());

	if (!pid)
		exit(child());
	MUST(waitpid(pid, &status, 0));
	if (!WIFEXITED(status))
		fact_check(false, "child", "ended with status %#x", (unsigned)status);
	else if (WEXITSTATUS(status))
		fact_failed++; /* it has said why */
}

int main(void)
{
	fact_init();
	run_child(child_with_both);
	run_child(child_with_perfmon);
	run_child(child_without_bpf);
	return fact_end();
}

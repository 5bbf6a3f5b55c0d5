/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A BPF iterator over open files shows those of all processes to a process that has CAP_BPF and CAP_PERFMON when the program is loaded, and that may not look into /proc/PID/fd of the others.
 * Afterwards it needs nothing. One process can be asked for (kernel 6.1 on). A read() ends when it has as much as was asked for.
 */
#include <bpf/btf.h>
#include <cap-ng.h>
#include <dirent.h>
#include <stddef.h>
#include <sys/wait.h>

#include "fact.h"

/* For each open file: its number, 8 bytes. The context is meta, task, fd, file, 8 bytes each; meta begins with the seq_file. */
static int load(void)
{
	struct bpf_insn insns[] = {
		BPF_LDX_MEM(BPF_DW, BPF_REG_2, BPF_REG_1, 24),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_2, 0, 8),
		BPF_LDX_MEM(BPF_W, BPF_REG_3, BPF_REG_1, 16),
		BPF_STX_MEM(BPF_DW, BPF_REG_10, BPF_REG_3, -8),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_1, 0),
		BPF_LDX_MEM(BPF_DW, BPF_REG_1, BPF_REG_1, 0),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -8),
		BPF_MOV64_IMM(BPF_REG_3, 8),
		BPF_CALL_FUNC(BPF_FUNC_seq_write),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_TRACE_ITER);
	struct btf *btf = btf__load_vmlinux_btf();
	int id = btf ? btf__find_by_name_kind(btf, "bpf_iter_task_file", BTF_KIND_FUNC) : -1;

	btf__free(btf);
	if (id < 0)
		return -ENOENT;
	opts.attach_btf_id = (__u32)id;
	return bpf_prog_load(BPF_PROG_TYPE_TRACING, "files", "GPL", insns,
			     sizeof(insns) / sizeof(insns[0]), &opts);
}

/* Files that it shows, of one process or of all (0); how many bytes the first read() gave. */
static int count(int prog, int pid, int *ret_first)
{
	union bpf_iter_link_info info = { .task.pid = (__u32)pid };
	LIBBPF_OPTS(bpf_link_create_opts, opts, .iter_info = &info, .iter_info_len = sizeof(info));
	int link = MUST(bpf_link_create(prog, 0, BPF_TRACE_ITER, pid ? &opts : NULL));
	int fd = MUST(bpf_iter_create(link)), n = 0, got;
	__u64 rec[512];

	*ret_first = MUST((int)read(fd, rec, sizeof(rec[0])));
	n = *ret_first / (int)sizeof(rec[0]);
	while ((got = MUST((int)read(fd, rec, sizeof(rec)))) > 0)
		n += got / (int)sizeof(rec[0]);
	close(fd);
	close(link);
	return n;
}

static void keep(int one, int two)
{
	capng_clear(CAPNG_SELECT_CAPS);
	if (one >= 0)
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, (unsigned)one);
	if (two >= 0)
		capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, (unsigned)two);
	MUST(capng_apply(CAPNG_SELECT_CAPS));
}

/* The parent has descriptors, all the capabilities, and the same user: those of root alone do not open its directory. */
static int child(void)
{
	int parent = getppid(), prog, n, all, first;
	char path[64], text[64];
	DIR *d;

	keep(CAP_BPF, CAP_PERFMON);
	snprintf(path, sizeof(path), "/proc/%d/fd/0", parent);
	n = (int)readlink(path, text, sizeof(text));
	fact_check(n < 0 && errno == EACCES, "proc_refuses", "reading the link returned %d, %s", n,
		   strerror(errno));
	d = opendir("/proc/self/fd");
	fact_check(d, "proc_own", "%s", strerror(errno));
	if (d)
		closedir(d);
	prog = load();
	if (!fact_check(prog >= 0, "loads", "%s", strerror(-prog)))
		return fact_end();
	keep(-1, -1);
	n = count(prog, parent, &first);
	fact_check(n >= 3, "shows_others", "%d files of our parent", n);
	fact_check(first == 8, "reads_what_was_asked", "%d bytes", first);
	all = count(prog, 0, &first);
	fact_check(all > n, "shows_all", "%d files of all, %d of our parent", all, n);
	return fact_end();
}

static int child_without(void)
{
	int prog;

	keep(CAP_BPF, -1);
	prog = load();
	fact_check(prog == -EPERM, "perfmon_needed", "returned %d", prog);
	return fact_end();
}

static void run(int (*fn)(void))
{
	int status;
	pid_t pid = MUST(fork());

	if (!pid)
		exit(fn());
	MUST(waitpid(pid, &status, 0));
	if (!WIFEXITED(status))
		fact_check(false, "child", "ended with status %#x", (unsigned)status);
	else if (WEXITSTATUS(status))
		fact_failed++; /* it has said why */
}

int main(void)
{
	fact_init();
	run(child);
	run(child_without);
	return fact_end();
}

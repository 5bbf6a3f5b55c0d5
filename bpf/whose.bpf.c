// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * Who has a socket: an iterator over all open files of all processes, or of one, which writes a struct sluice_whose for each descriptor of the socket that is asked for.
 * It needs no right to look into other processes (CAP_SYS_PTRACE), only those that tracing programs need, CAP_BPF and CAP_PERFMON; and it is a good deal faster than /proc.
 *
 * The kernel's structures are described as far as they are used; libbpf puts in the offsets of the kernel that is there (CO-RE).
 */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "sluice_whose.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define KERNEL __attribute__((preserve_access_index))

struct kernfs_node {
	__u64 id;
} KERNEL;

struct cgroup {
	struct kernfs_node *kn;
} KERNEL;

struct css_set {
	struct cgroup *dfl_cgrp;
} KERNEL;

struct pid_namespace;

struct upid {
	int nr;
	struct pid_namespace *ns;
} KERNEL;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} KERNEL;

struct task_struct {
	char comm[16];
	struct css_set *cgroups;
	struct pid *thread_pid;
	struct task_struct *group_leader;
} KERNEL;

struct inode {
	unsigned long i_ino;
} KERNEL;

struct file {
	struct inode *f_inode;
} KERNEL;

struct socket;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
} KERNEL;

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
} KERNEL;

/* Of the socket. Its cookie would not do: an MPTCP connection's differ from that of the socket that the process has. */
__u64 wanted_inode;

/* A process's number in the pid namespace of whoever reads, which is the one that the iterator walks through. */
static __always_inline __u32 pid_here(struct task_struct *leader)
{
	struct task_struct *me = (struct task_struct *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(leader, thread_pid);
	__u32 level = BPF_CORE_READ(me, thread_pid, level);
	int nr = 0;

	/* numbers[] is as long as the process's own level demands. */
	if (!pid || level > BPF_CORE_READ(pid, level))
		return 0;
	bpf_probe_read_kernel(&nr, sizeof(nr),
			      (char *)pid + bpf_core_field_offset(struct pid, numbers) +
				      (__u64)level * bpf_core_type_size(struct upid) +
				      bpf_core_field_offset(struct upid, nr));
	return (__u32)nr;
}

SEC("iter/task_file")
int whose(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task, *leader;
	struct file *file = ctx->file;
	struct sluice_whose w = { 0 };

	if (!task || !file || file->f_inode->i_ino != wanted_inode)
		return 0;
	/* Other file systems use the same numbers. */
	if (!bpf_sock_from_file(file))
		return 0;
	leader = task->group_leader;
	w.pid = pid_here(leader);
	w.fd = ctx->fd;
	w.cgroup = BPF_CORE_READ(leader, cgroups, dfl_cgrp, kn, id);
	bpf_probe_read_kernel_str(w.comm, sizeof(w.comm), leader->comm);
	if (w.pid)
		bpf_seq_write(ctx->meta->seq, &w, sizeof(w));
	return 0;
}

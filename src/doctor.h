/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "sluice doctor": can this machine run sluice, and will it do what the configuration says? Looks
 * and changes nothing; works with the daemon down and as any user, who is then told what could not
 * be seen. Ids besides those of hostplan_judge(): config, host, kernel.release, kernel.btf,
 * kernel.tcx, kernel.jit, kernel.unprivileged_bpf, bpffs, capabilities, nat.rules, nat.conntrack, those of kernel_has_judge(), and
 * those of natrules_judge() and natflows_judge().
 */
#ifndef DOCTOR_H
#define DOCTOR_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "config.h"
#include "finding.h"

/* What was read; judged by doctor_judge(), so that tests can say what a machine looks like. */
struct doctor_facts {
	char release[65]; /* uname -r */
	bool btf;         /* /sys/kernel/btf/vmlinux can be read */
	char bpffs
		[200]; /* the nearest directory above the configured path that exists; "": none is needed */
	bool bpffs_is; /* it is on a BPF file system */
	int jit;       /* net.core.bpf_jit_enable; -ENOENT outside the first network namespace */
	int unprivileged_bpf_disabled; /* -errno */
	uid_t euid;
	/* Effective capabilities; bpf and perfmon also by CAP_SYS_ADMIN. */
	bool net_admin, bpf, perfmon, net_raw, chown, sys_admin;
	bool conntrack_module; /* the types of conntrack's entries are a module's, not the kernel's */
	int nat_chains;        /* nf_tables chains of type nat, or -errno */
	char nat_names[160];
	int nat_legacy; /* 1: the old iptables has a nat table here; 0; -errno */
	int conntrack; /* entries of this namespace, -ENOENT: no connection tracking in the kernel */
	/* What is not the machine's, but the configuration's. */
	bool watch_only; /* it has no pools */
	bool enters;     /* it watches namespaces besides the one that the daemon starts in */
	bool watch_bpf;  /* it watches by the netfilter program */
};

/* c: the configuration, or NULL. */
void doctor_read(const struct config *c, struct doctor_facts *ret);
void doctor_judge(const struct doctor_facts *f, struct findings *out);

/* All checks, in the calling thread's network namespace. c may be NULL: then only what needs no configuration. */
void doctor_run(const struct config *c, struct findings *out);

/*
 * Print the findings, for people with a line that sums up, or as JSON (findings_print()). Returns
 * the command's exit code: 0, or 2 when one is an error or the output could not be written.
 */
int doctor_print(FILE *f, const struct findings *fs, bool json);

#endif

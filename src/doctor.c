/* SPDX-License-Identifier: BSD-2-Clause */
#include "doctor.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "collision.h"
#include "host.h"
#include "kernelhas.h"
#include "natflows.h"
#include "natrules.h"
#include "sysctl.h"

#define BPFFS_DEFAULT "/sys/fs/bpf/sluice"
#define EXIT_FAILED   2

static int read_int(const char *key)
{
	int v, r = sysctl_read_int(key, &v);

	return r < 0 ? r : v;
}

/* The daemon makes the last directories itself, so the file system is that of what exists above them. */
static void read_bpffs(const char *path, struct doctor_facts *f)
{
	struct statfs fs;

	snprintf(f->bpffs, sizeof(f->bpffs), "%s", path);
	while (statfs(f->bpffs, &fs) < 0) {
		char *slash = strrchr(f->bpffs, '/');

		if (!slash || slash == f->bpffs) {
			snprintf(f->bpffs, sizeof(f->bpffs), "/");
			if (statfs("/", &fs) < 0)
				return;
			break;
		}
		*slash = '\0';
	}
	f->bpffs_is = fs.f_type == BPF_FS_MAGIC;
}

static void read_capabilities(struct doctor_facts *f)
{
	if (capng_get_caps_process() != 0)
		return;
	f->net_admin = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN);
	f->net_raw = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_RAW);
	f->bpf = capng_have_capability(CAPNG_EFFECTIVE, CAP_BPF) ||
		 capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
	f->perfmon = capng_have_capability(CAPNG_EFFECTIVE, CAP_PERFMON) ||
		     capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
	f->chown = capng_have_capability(CAPNG_EFFECTIVE, CAP_CHOWN);
	f->sys_admin = capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
}

/* The old iptables lists its tables of the namespace in a file; no file, no such tables. */
static int read_nat_legacy(void)
{
	char line[64];
	int found = 0;
	FILE *f = fopen("/proc/thread-self/net/ip_tables_names", "re");

	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (fgets(line, sizeof(line), f))
		found |= !strcmp(line, "nat\n");
	fclose(f);
	return found;
}

static void read_nat(struct doctor_facts *f)
{
	size_t n;
	int r = host_nat_chains(f->nat_names, sizeof(f->nat_names), &n);

	/* Anything but a refusal says that the kernel has no nf_tables, and so no such chains. */
	f->nat_chains = r == 0 ? (int)n : r == -EPERM || r == -EACCES ? r : 0;
	f->nat_legacy = read_nat_legacy();
	f->conntrack = read_int("net.netfilter.nf_conntrack_count");
}

static void read_config(const struct config *c, struct doctor_facts *f)
{
	f->watch_only = !c->n_pools;
	for (size_t i = 0; i < c->watch.n_netns; i++)
		f->enters |= *c->watch.netns[i] != '\0';
	f->watch_bpf = c->watch.n_netns && c->watch.sources & COLLISION_NETFILTER;
}

void doctor_read(const struct config *c, struct doctor_facts *ret)
{
	struct utsname u;

	memset(ret, 0, sizeof(*ret));
	if (c)
		read_config(c, ret);
	if (uname(&u) == 0)
		snprintf(ret->release, sizeof(ret->release), "%s", u.release);
	ret->btf = access("/sys/kernel/btf/vmlinux", R_OK) == 0;
	/* Who only watches pins nothing. */
	if (!ret->watch_only)
		read_bpffs(c && c->bpffs ? c->bpffs : BPFFS_DEFAULT, ret);
	ret->jit = read_int("net.core.bpf_jit_enable");
	ret->unprivileged_bpf_disabled = read_int("kernel.unprivileged_bpf_disabled");
	ret->euid = geteuid();
	read_capabilities(ret);
	ret->conntrack_module = access("/sys/kernel/btf/nf_conntrack", F_OK) == 0;
	read_nat(ret);
}

#define VERSION(major, minor) ((major)*1000u + (minor))

static void judge_release(const struct doctor_facts *f, struct findings *out)
{
	unsigned int major, minor;

	if (sscanf(f->release, "%u.%u", &major, &minor) != 2) {
		findings_add(out, "kernel.release", FINDING_WARN, NULL,
			     "kernel release \"%s\" is not a version", f->release);
		return;
	}
	if (VERSION(major, minor) < VERSION(5, 17)) {
		findings_add(out, "kernel.release", FINDING_ERROR, "use kernel 6.1 or later",
			     "kernel %s lacks what the data plane needs (bpf_loop, 5.17)",
			     f->release);
		return;
	}
	if (VERSION(major, minor) < VERSION(6, 1))
		findings_add(out, "kernel.release", FINDING_WARN, "use kernel 6.1 or later",
			     "kernel %s is older than those that sluice is tested on", f->release);
	else
		findings_add(out, "kernel.release", FINDING_OK, NULL, "kernel %s", f->release);
	if (VERSION(major, minor) < VERSION(6, 6))
		findings_add(out, "kernel.tcx", FINDING_INFO, NULL,
			     "no TCX before kernel 6.6: the programs are attached through clsact");
	else
		findings_add(out, "kernel.tcx", FINDING_OK, NULL, "TCX links (6.6 and later)");
}

static void judge_bpf(const struct doctor_facts *f, struct findings *out)
{
	if (f->btf)
		findings_add(out, "kernel.btf", FINDING_OK, NULL, "the kernel describes its types");
	else
		findings_add(out, "kernel.btf", FINDING_ERROR,
			     "use a kernel built with CONFIG_DEBUG_INFO_BTF, and mount /sys",
			     "/sys/kernel/btf/vmlinux can't be read: the programs can't be fitted "
			     "to this kernel");
	if (f->bpffs[0] && f->bpffs_is)
		findings_add(out, "bpffs", FINDING_OK, NULL, "%s is a BPF file system", f->bpffs);
	else if (f->bpffs[0])
		findings_add(out, "bpffs", FINDING_ERROR,
			     "mount -t bpf bpf /sys/fs/bpf, or let bpffs name a mounted one",
			     "%s is not on a BPF file system: nothing can be pinned there",
			     f->bpffs);
	if (f->jit == 0)
		findings_add(out, "kernel.jit", FINDING_WARN, "sysctl -w net.core.bpf_jit_enable=1",
			     "BPF programs are interpreted: several times slower");
	else if (f->jit > 0)
		findings_add(out, "kernel.jit", FINDING_OK, NULL, "BPF programs are compiled");
	if (f->unprivileged_bpf_disabled == 0)
		findings_add(out, "kernel.unprivileged_bpf", FINDING_INFO,
			     "sysctl -w kernel.unprivileged_bpf_disabled=1",
			     "every user may load BPF programs; sluice does not need that");
	else if (f->unprivileged_bpf_disabled > 0)
		findings_add(out, "kernel.unprivileged_bpf", FINDING_OK, NULL,
			     "users without privileges may not load BPF programs");
}

static void judge_capabilities(const struct doctor_facts *f, struct findings *out)
{
	/* What an ordinary user lacks says nothing about how sluiced is started; what root lacks does. */
	const char *advice = f->euid == 0 ? "give them to sluiced (in its unit or container)"
					  : "run as root to check what sluiced would have";
	bool net_raw = f->net_raw || f->watch_only, sys_admin = f->sys_admin || !f->enters;
	bool layout = f->sys_admin || !f->watch_bpf || !f->conntrack_module;

	if (!f->net_admin || !f->bpf || !f->perfmon || !net_raw || !f->chown || !sys_admin)
		findings_add(out, "capabilities", f->euid == 0 ? FINDING_ERROR : FINDING_INFO,
			     advice, "this process lacks%s%s%s%s%s%s",
			     f->net_admin ? "" : " CAP_NET_ADMIN", f->bpf ? "" : " CAP_BPF",
			     f->perfmon ? "" : " CAP_PERFMON", net_raw ? "" : " CAP_NET_RAW",
			     f->chown ? "" : " CAP_CHOWN", sys_admin ? "" : " CAP_SYS_ADMIN");
	else if (!layout)
		findings_add(out, "capabilities", f->euid == 0 ? FINDING_WARN : FINDING_INFO,
			     advice,
			     "this process lacks CAP_SYS_ADMIN: how the module nf_conntrack lays "
			     "out its entries can't be read, which the watcher's netfilter program "
			     "has to know");
	else
		findings_add(out, "capabilities", FINDING_OK, NULL,
			     "this process has what sluiced needs");
}

static void judge_nat(const struct doctor_facts *f, struct findings *out)
{
	static const char advice[] = "let those rules leave alone the pools' clients and "
				     "everything from a shared address";

	if (f->nat_chains > 0)
		findings_add(out, "nat.rules", FINDING_WARN, advice,
			     "netfilter has NAT chains here (%s): they can rewrite packets before "
			     "sluice sees them",
			     f->nat_names);
	if (f->nat_legacy > 0)
		findings_add(out, "nat.rules", FINDING_WARN, advice,
			     "the old iptables has a nat table here: it can rewrite packets before "
			     "sluice sees them");
	if (f->nat_chains < 0 || f->nat_legacy < 0)
		findings_add(out, "nat.rules", FINDING_INFO, "run as root",
			     "NAT rules of netfilter can't be read: %s",
			     strerror(f->nat_chains < 0 ? -f->nat_chains : -f->nat_legacy));
	else if (f->nat_chains == 0 && f->nat_legacy == 0)
		findings_add(out, "nat.rules", FINDING_OK, NULL,
			     "netfilter translates nothing here");
	if (f->conntrack > 0)
		findings_add(out, "nat.conntrack", FINDING_INFO, NULL,
			     "connection tracking is at work here (%d entries): forwarded packets "
			     "count in its table too, with their inner addresses",
			     f->conntrack);
	else if (f->conntrack == 0 || f->conntrack == -ENOENT)
		findings_add(out, "nat.conntrack", FINDING_OK, NULL,
			     "no connection is tracked here");
}

void doctor_judge(const struct doctor_facts *f, struct findings *out)
{
	judge_release(f, out);
	judge_bpf(f, out);
	judge_capabilities(f, out);
	judge_nat(f, out);
}

/* The rules one by one: what each can do to slices, clients and sockets. That there are any is said by doctor_judge(). */
static void run_rules(const struct config *c, struct findings *out)
{
	struct natrules *rules = calloc(1, sizeof(*rules));
	unsigned first = 0, last = 0;
	struct errtext err = { 0 };
	char range[32];
	int r;

	if (!rules) {
		out->err = -ENOMEM;
		return;
	}
	if (sysctl_read("net.ipv4.ip_local_port_range", range, sizeof(range)) < 0 ||
	    sscanf(range, "%u %u", &first, &last) != 2 || last > UINT16_MAX)
		first = last = 0;
	r = natrules_read(rules, &err);
	if (!r)
		natrules_judge(rules, c, (uint16_t)first, (uint16_t)last, out);
	else if (r != -EPERM && r != -EOPNOTSUPP)
		findings_add(out, "nat.rules", FINDING_WARN, NULL, "%s", err.s);
	free(rules);
}

static void run_host(const struct config *c, struct findings *out)
{
	struct host_session *h;
	struct errtext err = { 0 };

	if (host_open(&h, &err) < 0) {
		findings_add(out, "host", FINDING_ERROR, NULL, "%s", err.s);
		return;
	}
	if (host_check(h, c, out, &err) < 0)
		findings_add(out, "host", FINDING_ERROR, NULL, "%s", err.s);
	host_close(h);
}

void doctor_run(const struct config *c, struct findings *out)
{
	struct doctor_facts f;
	struct kernel_has has;

	doctor_read(c, &f);
	doctor_judge(&f, out);
	kernel_has_read(&has);
	kernel_has_judge(&has, out);
	run_rules(c, out);
	if (!c) {
		findings_add(out, "config", FINDING_INFO, "name the configuration with -f",
			     "without a configuration only the kernel is checked");
		return;
	}
	for (size_t i = 0; i < c->n_warnings; i++)
		findings_add(out, "config", FINDING_WARN, NULL, "%s", c->warnings[i]);
	if (c->n_pools)
		run_host(c, out);
	natflows_run(c, out);
}

int doctor_print(FILE *f, const struct findings *fs, bool json)
{
	size_t count[FINDING_SEVERITIES] = { 0 };
	int r = findings_print(f, fs, json);

	for (size_t i = 0; i < fs->n; i++)
		count[fs->v[i].severity]++;
	if (!json)
		fprintf(f, "%zu ok, %zu to know, %zu warnings, %zu errors\n", count[FINDING_OK],
			count[FINDING_INFO], count[FINDING_WARN], count[FINDING_ERROR]);
	if (r < 0 || fflush(f) != 0 || findings_worst(fs) == FINDING_ERROR)
		return EXIT_FAILED;
	return 0;
}

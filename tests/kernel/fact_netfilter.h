/* SPDX-License-Identifier: BSD-2-Clause */
/* Netfilter programs: how they are loaded and attached, which libbpf 1.1 does not know. */
#ifndef FACT_NETFILTER_H
#define FACT_NETFILTER_H

#include "fact.h"

#include <linux/netfilter.h>
#include <sys/syscall.h>

/* Kernel 6.4 on; the headers and libbpf of Debian 12 have no name for them. */
#define FACT_PROG_NETFILTER   ((enum bpf_prog_type)32)
#define FACT_ATTACH_NETFILTER ((enum bpf_attach_type)45)

static inline int fact_netfilter_try(const struct bpf_insn *insns, size_t n)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = FACT_ATTACH_NETFILTER);

	return bpf_prog_load(FACT_PROG_NETFILTER, "fact", "Dual BSD/GPL", insns, n, &opts);
}

/* Ends the program where the kernel has no such programs. */
static inline void fact_netfilter_need(void)
{
	const struct bpf_insn accept[] = {
		BPF_MOV64_IMM(BPF_REG_0, NF_ACCEPT),
		BPF_EXIT_INSN(),
	};
	int fd = fact_netfilter_try(accept, 2);

	if (fd < 0 && errno == EINVAL) {
		fact_skip("everything", "this kernel has no netfilter programs (6.4 on)");
		exit(0);
	}
	close(MUST(fd));
}

static inline int fact_netfilter(const struct bpf_insn *insns, size_t n)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = FACT_ATTACH_NETFILTER);

	return fact_prog_opts(FACT_PROG_NETFILTER, insns, n, &opts);
}
#define FACT_NETFILTER(insns) fact_netfilter(insns, sizeof(insns) / sizeof((insns)[0]))

/* At POSTROUTING, IPv4. Returns the link, or -1 with errno. */
static inline int fact_netfilter_link(int prog, int32_t priority)
{
	struct {
		__u32 prog_fd, target_fd, attach_type, flags;
		__u32 pf, hooknum;
		__s32 priority;
		__u32 netfilter_flags;
	} attr = {
		.prog_fd = (__u32)prog,
		.attach_type = FACT_ATTACH_NETFILTER,
		.pf = NFPROTO_IPV4,
		.hooknum = NF_INET_POST_ROUTING,
		.priority = priority,
	};

	return (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
}

#endif

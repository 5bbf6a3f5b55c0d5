/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Helpers of the programs that each prove one behaviour of the kernel that the design relies on. A program
 * prints one line a case, "ok NAME", "not ok NAME: why" or "skip NAME: why", works in network and mount
 * namespaces of its own, and so leaves nothing behind however it ends.
 *
 * BPF programs are written as instructions, so that nothing but the kernel itself is under test.
 */
#ifndef FACT_H
#define FACT_H

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

/* Kernel 6.6 on; the headers and libbpf of Debian 12 have no name for them. */
#define FACT_TCX_INGRESS ((enum bpf_attach_type)46)
#define FACT_TCX_EGRESS  ((enum bpf_attach_type)47)

/* The bpffs of a program's own mount namespace. */
#define FACT_BPFFS "/sys/fs/bpf"

/* How long to wait for something that has to happen. */
#define FACT_PATIENCE_MS 10000

static int fact_failed;

/* One case: prints its line and returns what came out. The text is the reason of a failure. */
__attribute__((format(printf, 3, 4))) static inline bool fact_check(bool good, const char *name,
								    const char *why, ...)
{
	va_list ap;

	if (good) {
		printf("ok %s\n", name);
	} else {
		fact_failed++;
		printf("not ok %s: ", name);
		va_start(ap, why);
		vprintf(why, ap);
		va_end(ap);
		printf("\n");
	}
	fflush(stdout);
	return good;
}

__attribute__((format(printf, 2, 3))) static inline void fact_skip(const char *name,
								   const char *why, ...)
{
	va_list ap;

	printf("skip %s: ", name);
	va_start(ap, why);
	vprintf(why, ap);
	va_end(ap);
	printf("\n");
	fflush(stdout);
}

/* The exit code of main(). */
static inline int fact_end(void)
{
	return fact_failed ? 1 : 0;
}

/* What has to work before the fact itself can be tried. libbpf 1 sets errno as system calls do. */
static inline int fact_must(int rc, const char *what)
{
	if (rc >= 0)
		return rc;
	fact_check(false, "setup", "%s: %s", what, strerror(errno));
	exit(1);
}
#define MUST(call) fact_must((call), #call)

__attribute__((format(printf, 1, 2))) static inline void fact_sh(const char *fmt, ...)
{
	char cmd[1024];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	rc = system(cmd);
	if (rc) {
		fact_check(false, "setup", "\"%s\" ended with status %d", cmd, rc);
		exit(1);
	}
}

/* Enter a new network namespace with the loopback up. Returns a descriptor to come back to it with. */
static inline int fact_netns_new(void)
{
	MUST(unshare(CLONE_NEWNET));
	fact_sh("ip link set lo up");
	return MUST(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

static inline void fact_netns_enter(int netns)
{
	MUST(setns(netns, CLONE_NEWNET));
}

/* Namespaces of our own, with a bpffs at FACT_BPFFS. Returns the network namespace's descriptor. */
static inline int fact_init(void)
{
	if (geteuid()) {
		fact_skip("everything", "needs root");
		exit(0);
	}
	libbpf_set_print(NULL);
	MUST(unshare(CLONE_NEWNS));
	MUST(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	MUST(mount("bpffs", FACT_BPFFS, "bpf", 0, "mode=0700"));
	return fact_netns_new();
}

static inline void fact_write(const char *path, const char *text)
{
	int fd = fact_must(open(path, O_WRONLY | O_CLOEXEC), path);

	fact_must((int)write(fd, text, strlen(text)), path);
	close(fd);
}

/* Two veth ends: a in the namespace ns_a, b in ns_b. Ends up in ns_a. Interfaces are up, without addresses. */
static inline void fact_veth(int ns_a, const char *a, int ns_b, const char *b)
{
	fact_netns_enter(ns_b);
	fact_sh("ip link add %s type veth peer name %s netns /proc/%d/fd/%d", b, a, getpid(), ns_a);
	fact_sh("ip link set dev %s up", b);
	fact_netns_enter(ns_a);
	fact_sh("ip link set dev %s up", a);
}

static inline struct sockaddr_in fact_addr(const char *ip, uint16_t port)
{
	struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = htons(port) };

	inet_pton(AF_INET, ip, &sin.sin_addr);
	return sin;
}

static inline int fact_bind(int fd, const char *ip, uint16_t port)
{
	struct sockaddr_in sin = fact_addr(ip, port);

	return bind(fd, (struct sockaddr *)&sin, sizeof(sin));
}

static inline int fact_connect(int fd, const char *ip, uint16_t port)
{
	struct sockaddr_in sin = fact_addr(ip, port);

	return connect(fd, (struct sockaddr *)&sin, sizeof(sin));
}

/* A TCP (SOCK_STREAM) or UDP (SOCK_DGRAM) socket bound to ip and port (0: any). */
static inline int fact_socket(int type, const char *ip, uint16_t port)
{
	int fd = MUST(socket(AF_INET, type | SOCK_CLOEXEC, 0)), one = 1;

	MUST(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	MUST(fact_bind(fd, ip, port));
	return fd;
}

static inline int fact_listen(const char *ip, uint16_t port)
{
	int fd = fact_socket(SOCK_STREAM, ip, port);

	MUST(listen(fd, 64));
	return fd;
}

/* The port of a socket's own end, or of its peer, in host order; 0 when it has none. */
static inline uint16_t fact_port(int fd, bool peer)
{
	struct sockaddr_in sin = { 0 };
	socklen_t len = sizeof(sin);

	if ((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&sin, &len))
		return 0;
	return ntohs(sin.sin_port);
}

/* Wait until fd is ready for events. False when patience ends. */
static inline bool fact_wait(int fd, short events)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	return poll(&pfd, 1, FACT_PATIENCE_MS) == 1;
}

/* Accept one connection, waiting for it. -1 when none came. */
static inline int fact_accept(int fd)
{
	return fact_wait(fd, POLLIN) ? accept4(fd, NULL, NULL, SOCK_CLOEXEC) : -1;
}

/* A sender and a receiver on the loopback, so that a datagram is one packet and provokes no other. */
struct fact_udp {
	int tx, rx;
};

static inline struct fact_udp fact_udp_open(void)
{
	struct fact_udp u = {
		.tx = fact_socket(SOCK_DGRAM, "127.0.0.1", 0),
		.rx = fact_socket(SOCK_DGRAM, "127.0.0.1", 0),
	};

	MUST(fact_connect(u.tx, "127.0.0.1", fact_port(u.rx, false)));
	return u;
}

static inline void fact_udp_send(const struct fact_udp *u, int packets)
{
	char byte;

	while (packets--) {
		MUST((int)send(u->tx, "x", 1, 0));
		while (recv(u->rx, &byte, 1, MSG_DONTWAIT) > 0)
			;
	}
}

/* Eight words that a program and we share. */
#define FACT_CELLS 8
struct fact_cells {
	int fd;
	volatile uint64_t *c;
};

static inline struct fact_cells fact_cells_new(void)
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);
	struct fact_cells cells;
	void *mem;

	cells.fd = MUST(bpf_map_create(BPF_MAP_TYPE_ARRAY, "cells", 4, FACT_CELLS * 8, 1, &opts));
	mem = mmap(NULL, FACT_CELLS * 8, PROT_READ | PROT_WRITE, MAP_SHARED, cells.fd, 0);
	MUST(mem == MAP_FAILED ? -1 : 0);
	cells.c = mem;
	return cells;
}

/* The instructions that we need, named as in the kernel. */
#define BPF_INSN(c, d, s, o, i) \
	((struct bpf_insn){ .code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i) })
#define BPF_MOV64_REG(d, s)            BPF_INSN(BPF_ALU64 | BPF_MOV | BPF_X, d, s, 0, 0)
#define BPF_MOV64_IMM(d, i)            BPF_INSN(BPF_ALU64 | BPF_MOV | BPF_K, d, 0, 0, i)
#define BPF_ALU64_IMM(op, d, i)        BPF_INSN(BPF_ALU64 | (op) | BPF_K, d, 0, 0, i)
#define BPF_LDX_MEM(sz, d, s, o)       BPF_INSN(BPF_LDX | BPF_MEM | (sz), d, s, o, 0)
#define BPF_STX_MEM(sz, d, s, o)       BPF_INSN(BPF_STX | BPF_MEM | (sz), d, s, o, 0)
#define BPF_ST_MEM(sz, d, o, i)        BPF_INSN(BPF_ST | BPF_MEM | (sz), d, 0, o, i)
#define BPF_ATOMIC_OP(sz, op, d, s, o) BPF_INSN(BPF_STX | BPF_ATOMIC | (sz), d, s, o, op)
#define BPF_JMP_IMM(op, d, i, o)       BPF_INSN(BPF_JMP | (op) | BPF_K, d, 0, o, i)
#define BPF_CALL_FUNC(f)               BPF_INSN(BPF_JMP | BPF_CALL, 0, 0, 0, f)
#define BPF_EXIT_INSN()                BPF_INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* Two instructions long: a map, the address of a byte of a one-row array's value, a function's address. */
#define BPF_LD_PSEUDO(d, s, i, next) \
	BPF_INSN(BPF_LD | BPF_DW | BPF_IMM, d, s, 0, i), BPF_INSN(0, 0, 0, 0, next)
#define BPF_LD_MAP_FD(d, fd)         BPF_LD_PSEUDO(d, BPF_PSEUDO_MAP_FD, fd, 0)
#define BPF_LD_MAP_VALUE(d, fd, off) BPF_LD_PSEUDO(d, BPF_PSEUDO_MAP_VALUE, fd, off)
#define BPF_LD_FUNC(d, rel)          BPF_LD_PSEUDO(d, BPF_PSEUDO_FUNC, rel, 0)

/* Load a program; the verifier's words are shown when it refuses. */
static inline int fact_prog_opts(enum bpf_prog_type type, const struct bpf_insn *insns, size_t n,
				 struct bpf_prog_load_opts *opts)
{
	static char log[65536];
	int fd;

	opts->log_buf = log;
	opts->log_size = sizeof(log);
	fd = bpf_prog_load(type, "fact", "Dual BSD/GPL", insns, n, opts);
	if (fd < 0)
		printf("# %s\n", log);
	return MUST(fd);
}

static inline int fact_prog(enum bpf_prog_type type, const struct bpf_insn *insns, size_t n)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts);

	return fact_prog_opts(type, insns, n, &opts);
}
#define FACT_PROG(type, insns) fact_prog(type, insns, sizeof(insns) / sizeof((insns)[0]))

/* A TC program that counts packets in a cell and returns verdict. */
static inline int fact_counter(const struct fact_cells *cells, int cell, int verdict)
{
	struct bpf_insn insns[] = {
		BPF_LD_MAP_VALUE(BPF_REG_1, cells->fd, cell * 8),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_1, BPF_REG_2, 0),
		BPF_MOV64_IMM(BPF_REG_0, verdict),
		BPF_EXIT_INSN(),
	};

	return FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);
}

/* Run a TC program on a frame of zeros, repeat times. Returns the verdict of the last run. */
static inline int fact_run_tc(int prog, struct __sk_buff *ctx, int repeat)
{
	uint8_t frame[64] = { 0 };
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .ctx_in = ctx, .ctx_size_in = ctx ? sizeof(*ctx) : 0, .repeat = repeat);

	MUST(bpf_prog_test_run_opts(prog, &opts));
	return (int)opts.retval;
}

/*
 * Attach a TC program at egress the newer way, TCX. Returns the link, or -1 where the kernel (before 6.6) has
 * none, after saying that the case is skipped for it.
 */
static inline int fact_tcx(int prog, const char *dev, const char *name)
{
	int link = bpf_link_create(prog, (int)if_nametoindex(dev), FACT_TCX_EGRESS, NULL);

	if (link < 0 && (errno == EINVAL || errno == EOPNOTSUPP)) {
		fact_skip(name, "this kernel has no TCX links (6.6 on)");
		return -1;
	}
	return MUST(link);
}

/* The same the older way, clsact. Stays attached as long as the interface lives. */
static inline void fact_clsact(int prog, const char *dev)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)if_nametoindex(dev),
		    .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .prog_fd = prog, .handle = 1, .priority = 1);
	int rc = bpf_tc_hook_create(&hook);

	MUST(rc == -EEXIST ? 0 : rc);
	MUST(bpf_tc_attach(&hook, &opts));
}

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cgroup/post_bind sees the address and port that a bind got, an IPv4 one of an IPv6 socket mapped, and who did it: process, group, the socket's cookie and
 * its namespace's. It does not run when the kernel binds by itself (connect, sendto), nor for a bind that leaves the port to connect.
 */
#include <stddef.h>
#include <sys/stat.h>

#include "fact.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

#define RUNS 0
#define ADDR 1 /* last word of the address */
#define PORT 2
#define COOK 3
#define NETS 4
#define PID  5
#define CGRP 6
#define MAPD 7 /* the address's third word: ffff where it is mapped */

static struct fact_cells cells;

static int load(bool v6)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts,
		    .expected_attach_type =
			    v6 ? BPF_CGROUP_INET6_POST_BIND : BPF_CGROUP_INET4_POST_BIND);
	int last = v6 ? (int)offsetof(struct bpf_sock, src_ip6[3])
		      : (int)offsetof(struct bpf_sock, src_ip4);
	/* An IPv4 socket has no third word: its family stands there. */
	int third = v6 ? (int)offsetof(struct bpf_sock, src_ip6[2])
		       : (int)offsetof(struct bpf_sock, family);
	struct bpf_insn insns[] = {
		BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
		BPF_LD_MAP_VALUE(BPF_REG_7, cells.fd, 0),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_7, BPF_REG_2, RUNS * 8),
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_6, last),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_2, ADDR * 8),
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_6, third),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_2, MAPD * 8),
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct bpf_sock, src_port)),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_2, PORT * 8),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_CALL_FUNC(BPF_FUNC_get_socket_cookie),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_0, COOK * 8),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_CALL_FUNC(BPF_FUNC_get_netns_cookie),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_0, NETS * 8),
		BPF_CALL_FUNC(BPF_FUNC_get_current_pid_tgid),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_0, PID * 8),
		BPF_CALL_FUNC(BPF_FUNC_get_current_cgroup_id),
		BPF_STX_MEM(BPF_DW, BPF_REG_7, BPF_REG_0, CGRP * 8),
		BPF_MOV64_IMM(BPF_REG_0, 1),
		BPF_EXIT_INSN(),
	};

	return fact_prog_opts(BPF_PROG_TYPE_CGROUP_SOCK, insns, sizeof(insns) / sizeof(insns[0]),
			      &opts);
}

static bool cgroup2_find(char path[256])
{
	char line[1024], type[64];
	FILE *f = fopen("/proc/self/mounts", "r");
	bool found = false;

	while (f && !found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%*s %255s %63s", path, type) == 2 && !strcmp(type, "cgroup2");
	if (f)
		fclose(f);
	return found;
}

static void group_enter(const char *group)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	fact_write(path, "0");
}

static uint64_t cookie_of(int fd, int option)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	MUST(getsockopt(fd, SOL_SOCKET, option, &cookie, &len));
	return cookie;
}

int main(void)
{
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in to = fact_addr("127.0.0.1", 9);
	char root[256], group[300];
	int fd, one = 1, group_fd;
	struct stat st;
	uint64_t runs;

	fact_init();
	if (!cgroup2_find(root)) {
		fact_skip("post_bind", "no cgroup2 file system is mounted");
		return fact_end();
	}
	snprintf(group, sizeof(group), "%s/slab-fact-%d", root, (int)getpid());
	fact_sh("mkdir -p %s", group);
	group_enter(group);
	group_fd = MUST(open(group, O_RDONLY | O_CLOEXEC));
	MUST(fstat(group_fd, &st));
	cells = fact_cells_new();
	for (int i = 0; i < 2; i++)
		MUST(bpf_link_create(load(i), group_fd,
				     i ? BPF_CGROUP_INET6_POST_BIND : BPF_CGROUP_INET4_POST_BIND,
				     NULL));

	fd = fact_socket(SOCK_DGRAM, "127.0.0.1", 41000);
	fact_check(cells.c[RUNS] == 1 && cells.c[ADDR] == htonl(INADDR_LOOPBACK) &&
			   cells.c[PORT] == 41000,
		   "post_bind_address", "%d runs, port %d", (int)cells.c[RUNS], (int)cells.c[PORT]);
	fact_check(cells.c[COOK] == cookie_of(fd, SO_COOKIE), "post_bind_cookie", "another one");
	fact_check(cells.c[NETS] == cookie_of(fd, SO_NETNS_COOKIE), "post_bind_netns",
		   "another one");
	fact_check(cells.c[PID] >> 32 == (uint64_t)getpid(), "post_bind_pid", "pid %d",
		   (int)(cells.c[PID] >> 32));
	fact_check(cells.c[CGRP] == st.st_ino, "post_bind_cgroup", "group %llu",
		   (unsigned long long)cells.c[CGRP]);
	close(fd);
	fd = fact_socket(SOCK_STREAM, "127.0.0.1", 0);
	fact_check(cells.c[PORT] && cells.c[PORT] == fact_port(fd, false), "post_bind_any_port",
		   "port %d", (int)cells.c[PORT]);
	close(fd);

	fd = MUST(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
	inet_pton(AF_INET6, "::ffff:127.0.0.1", &v6.sin6_addr);
	v6.sin6_port = htons(41001);
	MUST(bind(fd, (struct sockaddr *)&v6, sizeof(v6)));
	fact_check(cells.c[ADDR] == htonl(INADDR_LOOPBACK) && cells.c[MAPD] == htonl(0xffff) &&
			   cells.c[PORT] == 41001,
		   "post_bind_mapped", "third word %llx, port %d",
		   (unsigned long long)cells.c[MAPD], (int)cells.c[PORT]);
	close(fd);

	runs = cells.c[RUNS];
	fd = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	MUST((int)sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	close(fd);
	fd = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	MUST(fact_connect(fd, "127.0.0.1", 9));
	close(fd);
	fact_check(cells.c[RUNS] == runs, "post_bind_not_automatic", "%d runs",
		   (int)(cells.c[RUNS] - runs));
	fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	MUST(setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)));
	MUST(fact_bind(fd, "127.0.0.1", 0));
	fact_check(cells.c[RUNS] == runs, "post_bind_not_without_port", "%d runs",
		   (int)(cells.c[RUNS] - runs));
	close(fd);

	group_enter(root);
	MUST(rmdir(group));
	return fact_end();
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sk_lookup and a sockmap: a socket in a slot receives what arrives for another address and port, TCP and unconnected UDP, and works for its owner as
 * before. The program is asked even where a bound unconnected UDP socket stands, and is not asked for connected ones. SK_DROP is a refusal, not silence. The
 * exchange of a slot's socket loses no datagram. On the loopback the interface is the loopback's.
 */
#include <stddef.h>
#include <sys/wait.h>

#include "fact.h"

#define SHARED "203.0.113.7"
#define PORT   41000
#define ELSE   7000

static struct fact_cells
	cells; /* c[0]: verdict without a socket; c[1]: times asked; c[2]: interface */
static int slots;

static void attach(void)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = BPF_SK_LOOKUP);
	int prog;

	cells = fact_cells_new();
	slots = MUST(bpf_map_create(BPF_MAP_TYPE_SOCKMAP, "steered", 4, 8, 1, NULL));

	struct bpf_insn insns[] = {
		BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_6,
			    offsetof(struct bpf_sk_lookup, local_port)),
		BPF_MOV64_IMM(BPF_REG_0, SK_PASS),
		BPF_JMP_IMM(BPF_JNE, BPF_REG_2, PORT, 24),
		BPF_LD_MAP_VALUE(BPF_REG_8, cells.fd, 0),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_8, BPF_REG_2, 8),
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_6,
			    offsetof(struct bpf_sk_lookup, ingress_ifindex)),
		BPF_STX_MEM(BPF_DW, BPF_REG_8, BPF_REG_2, 16),
		BPF_ST_MEM(BPF_W, BPF_REG_10, -4, 0),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_2, -4),
		BPF_LD_MAP_FD(BPF_REG_1, slots),
		BPF_CALL_FUNC(BPF_FUNC_map_lookup_elem),
		BPF_JMP_IMM(BPF_JNE, BPF_REG_0, 0, 3),
		BPF_LDX_MEM(BPF_DW, BPF_REG_0, BPF_REG_8, 0),
		BPF_ALU64_IMM(BPF_AND, BPF_REG_0, 1),
		BPF_EXIT_INSN(),
		BPF_MOV64_REG(BPF_REG_7, BPF_REG_0),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_MOV64_REG(BPF_REG_2, BPF_REG_7),
		BPF_MOV64_IMM(BPF_REG_3, 0),
		BPF_CALL_FUNC(BPF_FUNC_sk_assign),
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_7),
		BPF_CALL_FUNC(BPF_FUNC_sk_release),
		BPF_MOV64_IMM(BPF_REG_0, SK_PASS),
		BPF_EXIT_INSN(),
	};
	prog = fact_prog_opts(BPF_PROG_TYPE_SK_LOOKUP, insns, sizeof(insns) / sizeof(insns[0]),
			      &opts);
	MUST(bpf_link_create(prog, MUST(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)),
			     BPF_SK_LOOKUP, NULL));
}

static void slot_set(int fd)
{
	uint32_t zero = 0;
	uint64_t value = (uint64_t)fd;

	MUST(bpf_map_update_elem(slots, &zero, &value, BPF_ANY));
}

static bool slot_used(void)
{
	uint32_t zero = 0;
	uint64_t cookie;

	return !bpf_map_lookup_elem(slots, &zero, &cookie);
}

/* One datagram to the steered port, from a socket bound to any port of the loopback. */
static int datagram(void)
{
	int fd = fact_socket(SOCK_DGRAM, "127.0.0.1", 0);

	MUST(fact_connect(fd, SHARED, PORT));
	MUST((int)send(fd, "x", 1, 0));
	return fd;
}

static bool got_one(int fd)
{
	char byte;

	return fact_wait(fd, POLLIN) && recv(fd, &byte, 1, 0) == 1;
}

static void refusals(void)
{
	int fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), wild, error = 0;
	socklen_t len = sizeof(error);

	cells.c[0] = SK_DROP;
	wild = fact_listen("0.0.0.0", PORT);
	fact_check(fact_connect(fd, SHARED, PORT) && errno == ECONNREFUSED, "steer_drop_tcp", "%s",
		   strerror(errno));
	close(fd);
	close(wild);
	wild = fact_socket(SOCK_DGRAM, "0.0.0.0", PORT);
	fd = datagram();
	fact_wait(fd, POLLERR);
	MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
	fact_check(error == ECONNREFUSED, "steer_drop_udp", "%s", strerror(error));
	fact_check(cells.c[2] == if_nametoindex("lo"), "steer_loopback_ifindex", "interface %d",
		   (int)cells.c[2]);
	close(fd);
	cells.c[0] = SK_PASS;
	fd = datagram();
	fact_check(got_one(wild), "steer_pass", "the wildcard socket got nothing");
	close(fd);
	close(wild);
}

static void tcp(void)
{
	int listener = fact_listen("127.0.0.1", ELSE), fd, own, a = -1, b = -1;
	char byte;

	slot_set(listener);
	fd = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	fact_check(!fact_connect(fd, SHARED, PORT) && (a = fact_accept(listener)) >= 0, "steer_tcp",
		   "%s", strerror(errno));
	fact_check(fact_port(a, false) == PORT, "steer_tcp_port", "the accepted end has port %d",
		   fact_port(a, false));
	/* Its own address goes on. */
	own = MUST(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
	fact_check(!fact_connect(own, "127.0.0.1", ELSE) && (b = fact_accept(listener)) >= 0,
		   "steer_tcp_own", "%s", strerror(errno));
	close(own);
	close(b);
	/* The listener leaves the slot by its end, and what it accepted goes on. */
	close(listener);
	fact_check(!slot_used(), "steer_leaves_when_closed", "it is still there");
	MUST((int)send(fd, "x", 1, 0));
	fact_check(fact_wait(a, POLLIN) && recv(a, &byte, 1, 0) == 1 && send(a, "y", 1, 0) == 1 &&
			   fact_wait(fd, POLLIN) && recv(fd, &byte, 1, 0) == 1,
		   "steer_accepted_survives", "%s", strerror(errno));
	close(a);
	close(fd);
}

static void udp(void)
{
	int steered = fact_socket(SOCK_DGRAM, "127.0.0.1", ELSE), bound, fd, peer;
	uint64_t asked;

	slot_set(steered);
	fd = datagram();
	fact_check(got_one(steered), "steer_udp", "nothing arrived");
	close(fd);
	bound = fact_socket(SOCK_DGRAM, SHARED, PORT);
	fd = datagram();
	fact_check(got_one(steered), "steer_beats_bound", "nothing arrived");
	/* Connected to the sender: not the program's any more. */
	MUST(fact_connect(bound, "127.0.0.1", fact_port(fd, false)));
	asked = cells.c[1];
	MUST((int)send(fd, "x", 1, 0));
	fact_check(got_one(bound) && cells.c[1] == asked, "steer_not_connected",
		   "asked %d times more", (int)(cells.c[1] - asked));
	close(fd);
	close(bound);
	/* The owner uses it as ever. */
	peer = fact_socket(SOCK_DGRAM, "127.0.0.1", 0);
	MUST(fact_connect(peer, "127.0.0.1", ELSE));
	MUST(fact_connect(steered, "127.0.0.1", fact_port(peer, false)));
	MUST((int)send(steered, "x", 1, 0));
	MUST((int)send(peer, "x", 1, 0));
	fact_check(got_one(peer) && got_one(steered), "steer_owner", "%s", strerror(errno));
	close(peer);
	close(steered);
	fact_check(!slot_used(), "steer_udp_leaves_when_closed", "it is still there");
}

/* Two sockets take turns in the slot while a child sends numbers, never more than the receive buffers hold. */
#define NUMBERS 20000
#define WINDOW  64

static void exchange(void)
{
	volatile uint32_t *received =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int fds[2], turn = 0, lost = 0, got[2] = { 0, 0 };
	static bool seen[NUMBERS];
	uint32_t n;
	pid_t pid;

	for (int i = 0; i < 2; i++)
		fds[i] = fact_socket(SOCK_DGRAM, "127.0.0.1", (uint16_t)(ELSE + 1 + i));
	slot_set(fds[0]);
	pid = MUST(fork());
	if (!pid) {
		struct sockaddr_in to = fact_addr(SHARED, PORT);
		int fd = MUST(socket(AF_INET, SOCK_DGRAM, 0));

		for (n = 0; n < NUMBERS; n++) {
			while (n - *received > WINDOW)
				sched_yield();
			if (sendto(fd, &n, sizeof(n), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
				_exit(1);
		}
		_exit(0);
	}
	while (*received < NUMBERS) {
		struct pollfd p[2] = { { .fd = fds[0], .events = POLLIN },
				       { .fd = fds[1], .events = POLLIN } };

		if (poll(p, 2, FACT_PATIENCE_MS) <= 0)
			break;
		for (int i = 0; i < 2; i++) {
			while (recv(fds[i], &n, sizeof(n), MSG_DONTWAIT) == sizeof(n)) {
				seen[n] = true;
				got[i]++;
				(*received)++;
			}
		}
		turn = !turn;
		slot_set(fds[turn]);
	}
	/* A child that waits for its window would wait for ever. */
	if (*received < NUMBERS)
		*received = NUMBERS;
	MUST(waitpid(pid, NULL, 0));
	for (n = 0; n < NUMBERS; n++)
		lost += !seen[n];
	fact_check(!lost && got[0] && got[1], "steer_exchange", "%d lost, %d and %d received", lost,
		   got[0], got[1]);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	fact_init();
	fact_sh("ip route add local %s dev lo", SHARED);
	attach();
	refusals();
	tcp();
	udp();
	exchange();
	return fact_end();
}

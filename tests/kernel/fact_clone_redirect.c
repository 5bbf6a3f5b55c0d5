/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A TC program can send a copy of its packet through itself, then turn the packet into another one and send that as well
 * (bpf_clone_redirect to the packet's own device). At egress the copies are judged at once, before the call returns, and are still
 * known as forwarded; at ingress they come in once more, one after the other. Pieces of datagrams that had to wait are replayed so.
 *
 *   [a: 192.0.2.2] a0 ---- ra [router] rb ---- b0 [b: 198.51.100.2]
 */
#include <stddef.h>

#include "fact.h"

#define LONG           100 /* bytes of payload that are sent */
#define SHORT          60  /* and what the program makes of it */
#define FRAME(payload) (14 + 20 + 8 + (payload))

enum cell {
	RUNS,
	BUSY,    /* the program is replaying, or has: what comes now is passed */
	NESTED,  /* runs that began while another one was under way */
	IFINDEX, /* ingress_ifindex of the last copy */
	LENS,    /* lengths of the copies: the first in the upper half, the second in the lower */
	RC,      /* what the helpers returned */
	INSIDE,  /* a run is under way */
};

static struct sockaddr_in to;
static int rx, tx;

static void topology(int a, int router, int b)
{
	fact_veth(a, "a0", router, "ra");
	fact_sh("ip addr add 192.0.2.2/24 dev a0 && ip route add default via 192.0.2.1");
	fact_veth(b, "b0", router, "rb");
	fact_sh("ip addr add 198.51.100.2/24 dev b0 && ip route add default via 198.51.100.1");
	rx = fact_socket(SOCK_DGRAM, "198.51.100.2", 7000);
	fact_netns_enter(router);
	fact_sh("ip addr add 192.0.2.1/24 dev ra && ip addr add 198.51.100.1/24 dev rb");
	fact_write("/proc/sys/net/ipv4/ip_forward", "1");
	fact_netns_enter(a);
	tx = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	to = fact_addr("198.51.100.2", 7000);
	/* Changed payloads: no checksum. */
	MUST(setsockopt(tx, SOL_SOCKET, SO_NO_CHECK, &(int){ 1 }, sizeof(int)));
}

/* flags: of bpf_clone_redirect. */
static int replayer(const struct fact_cells *cells, int flags)
{
#define CELL(i) BPF_LD_MAP_VALUE(BPF_REG_9, cells->fd, (i)*8)
#define CLONE                                                                                  \
	BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),                                                   \
		BPF_LDX_MEM(BPF_W, BPF_REG_2, BPF_REG_6, offsetof(struct __sk_buff, ifindex)), \
		BPF_MOV64_IMM(BPF_REG_3, flags), BPF_CALL_FUNC(BPF_FUNC_clone_redirect)
	/* r7 |= r0 */
#define NOTE BPF_INSN(BPF_ALU64 | BPF_OR | BPF_X, BPF_REG_7, BPF_REG_0, 0, 0)
#define STORE(off, n)                                                                        \
	BPF_MOV64_REG(BPF_REG_1, BPF_REG_6), BPF_MOV64_IMM(BPF_REG_2, off),                  \
		BPF_MOV64_REG(BPF_REG_3, BPF_REG_10), BPF_ALU64_IMM(BPF_ADD, BPF_REG_3, -8), \
		BPF_MOV64_IMM(BPF_REG_4, n), BPF_MOV64_IMM(BPF_REG_5, 0),                    \
		BPF_CALL_FUNC(BPF_FUNC_skb_store_bytes)
	struct bpf_insn insns[] = {
		BPF_MOV64_REG(BPF_REG_6, BPF_REG_1),
		BPF_LDX_MEM(BPF_W, BPF_REG_8, BPF_REG_6, offsetof(struct __sk_buff, len)),
		CELL(RUNS),
		BPF_MOV64_IMM(BPF_REG_2, 1),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_9, BPF_REG_2, 0),
		CELL(BUSY),
		BPF_LDX_MEM(BPF_DW, BPF_REG_0, BPF_REG_9, 0),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_0, 0, 18),
		/* A copy. */
		CELL(LENS),
		BPF_LDX_MEM(BPF_DW, BPF_REG_0, BPF_REG_9, 0),
		BPF_ALU64_IMM(BPF_LSH, BPF_REG_0, 32),
		BPF_INSN(BPF_ALU64 | BPF_OR | BPF_X, BPF_REG_0, BPF_REG_8, 0, 0),
		BPF_STX_MEM(BPF_DW, BPF_REG_9, BPF_REG_0, 0),
		BPF_LDX_MEM(BPF_W, BPF_REG_0, BPF_REG_6,
			    offsetof(struct __sk_buff, ingress_ifindex)),
		CELL(IFINDEX),
		BPF_STX_MEM(BPF_DW, BPF_REG_9, BPF_REG_0, 0),
		CELL(INSIDE),
		BPF_LDX_MEM(BPF_DW, BPF_REG_2, BPF_REG_9, 0),
		CELL(NESTED),
		BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_9, BPF_REG_2, 0),
		BPF_MOV64_IMM(BPF_REG_0, -1),
		BPF_EXIT_INSN(),
		/* Only the packet that the test sends. */
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_8, FRAME(LONG), 2),
		BPF_MOV64_IMM(BPF_REG_0, -1),
		BPF_EXIT_INSN(),
		BPF_MOV64_IMM(BPF_REG_7, 0),
		BPF_ST_MEM(BPF_DW, BPF_REG_9, 0, 1),
		CELL(INSIDE),
		BPF_ST_MEM(BPF_DW, BPF_REG_9, 0, 1),
		CLONE,
		NOTE,
		/* Longer and then shorter: of whatever was known of a checksum of all bytes nothing stays. */
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_MOV64_IMM(BPF_REG_2, FRAME(LONG) + 1),
		BPF_MOV64_IMM(BPF_REG_3, 0),
		BPF_CALL_FUNC(BPF_FUNC_skb_change_tail),
		NOTE,
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_MOV64_IMM(BPF_REG_2, FRAME(SHORT)),
		BPF_MOV64_IMM(BPF_REG_3, 0),
		BPF_CALL_FUNC(BPF_FUNC_skb_change_tail),
		NOTE,
		BPF_MOV64_REG(BPF_REG_1, BPF_REG_6),
		BPF_MOV64_IMM(BPF_REG_2, 14 + 10),
		BPF_MOV64_IMM(BPF_REG_3, htons(20 + 8 + LONG)),
		BPF_MOV64_IMM(BPF_REG_4, htons(20 + 8 + SHORT)),
		BPF_MOV64_IMM(BPF_REG_5, 2),
		BPF_CALL_FUNC(BPF_FUNC_l3_csum_replace),
		NOTE,
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -8, htons(20 + 8 + SHORT)),
		STORE(14 + 2, 2),
		NOTE,
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -8, htons(8 + SHORT)),
		STORE(14 + 20 + 4, 2),
		NOTE,
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -8, 'y'),
		STORE(14 + 20 + 8, 1),
		NOTE,
		CLONE,
		NOTE,
		CELL(INSIDE),
		BPF_ST_MEM(BPF_DW, BPF_REG_9, 0, 0),
		CELL(RC),
		BPF_STX_MEM(BPF_DW, BPF_REG_9, BPF_REG_7, 0),
		/* The packet itself goes no further. */
		BPF_MOV64_IMM(BPF_REG_0, 2),
		BPF_EXIT_INSN(),
	};

	return FACT_PROG(BPF_PROG_TYPE_SCHED_CLS, insns);
}

/* The next datagram's first byte and length, 0 when none comes. */
static int received(char *ret_byte)
{
	char buf[256];
	ssize_t n;

	if (!fact_wait(rx, POLLIN))
		return 0;
	n = recv(rx, buf, sizeof(buf), 0);
	*ret_byte = buf[0];
	return (int)n;
}

static void send_long(void)
{
	char buf[LONG];

	memset(buf, 'x', sizeof(buf));
	MUST((int)sendto(tx, buf, sizeof(buf), 0, (struct sockaddr *)&to, sizeof(to)));
}

static void try(int router, bool egress)
{
	const char *dev = egress ? "rb" : "ra", *where = egress ? "egress" : "ingress";
	LIBBPF_OPTS(bpf_tc_hook, hook, .attach_point = egress ? BPF_TC_EGRESS : BPF_TC_INGRESS);
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 1, .priority = 1);
	struct fact_cells cells = fact_cells_new();
	char name[64], b1 = 0, b2 = 0;
	int n1, n2;

	opts.prog_fd = replayer(&cells, egress ? 0 : BPF_F_INGRESS);
	fact_netns_enter(router);
	hook.ifindex = (int)if_nametoindex(dev);
	MUST(bpf_tc_hook_create(&hook));
	MUST(bpf_tc_attach(&hook, &opts));

	send_long();
	n1 = received(&b1);
	n2 = received(&b2);
	snprintf(name, sizeof(name), "%s_both_arrive", where);
	fact_check(n1 == LONG && b1 == 'x' && n2 == SHORT && b2 == 'y', name,
		   "%d bytes of '%c', %d of '%c'; helpers said %lld", n1, b1, n2, b2,
		   (long long)cells.c[RC]);
	snprintf(name, sizeof(name), "%s_judged_again", where);
	fact_check(cells.c[RUNS] == 3 && !cells.c[RC] &&
			   cells.c[LENS] == ((uint64_t)FRAME(LONG) << 32 | FRAME(SHORT)),
		   name, "%d runs of 3, lengths %llx", (int)cells.c[RUNS],
		   (unsigned long long)cells.c[LENS]);
	snprintf(name, sizeof(name), "%s_%s", where, egress ? "at_once" : "afterwards");
	fact_check(cells.c[NESTED] == (egress ? 2 : 0), name, "%d runs inside the first",
		   (int)cells.c[NESTED]);
	snprintf(name, sizeof(name), "%s_still_forwarded", where);
	fact_check(cells.c[IFINDEX] == if_nametoindex("ra"), name, "came in by interface %d",
		   (int)cells.c[IFINDEX]);
	MUST(bpf_tc_detach(
		&hook, &(struct bpf_tc_opts){ .sz = sizeof(opts), .handle = 1, .priority = 1 }));
}

int main(void)
{
	int router = fact_init(), a = fact_netns_new(), b = fact_netns_new();

	topology(a, router, b);
	/* Neighbours are learnt by a packet that the programs do not see. */
	MUST((int)sendto(tx, "z", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	if (!fact_check(fact_wait(rx, POLLIN), "forwarded", "no datagram arrived"))
		return fact_end();
	recv(rx, (char[8]){ 0 }, 8, 0);
	try(router, true);
	try(router, false);
	return fact_end();
}

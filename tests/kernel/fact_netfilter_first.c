/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a netfilter program at POSTROUTING, priority 101, finds in a packet's connection tracking entry. A first packet's is new and not confirmed; that of later ones is confirmed,
 * and still new until an answer has come: so it is with the second datagram, and with a SYN that is sent again. And who sends: a TCP socket's lock is owned while its process sends, and
 * is not when a timer does.
 */
#include "fact_netfilter.h"

#include <bpf/btf.h>

#define IP_CT_ESTABLISHED 0
#define IP_CT_NEW         2
#define IPS_CONFIRMED     8
#define NOBODY            "192.0.2.99"

static struct fact_cells cells;
enum {
	PACKETS,
	INFO,
	STATUS,
	OWNED,
};

/* Where a member is in a type, in bytes; those of nameless members belong to it. -1: nowhere. */
static int member(const struct btf *btf, int id, const char *name, int *ret_type)
{
	const struct btf_type *t = btf__type_by_id(btf, (__u32)btf__resolve_type(btf, (__u32)id));
	const struct btf_member *m = btf_members(t);

	if (!btf_is_composite(t))
		return -1;
	for (int i = 0; i < btf_vlen(t); i++, m++) {
		const char *its = btf__name_by_offset(btf, m->name_off);
		int at = (int)btf_member_bit_offset(t, (__u32)i) / 8, in;

		if (!strcmp(its, name)) {
			*ret_type = (int)m->type;
			return at;
		}
		in = *its ? -1 : member(btf, (int)m->type, name, ret_type);
		if (in >= 0)
			return at + in;
	}
	return -1;
}

static int offset(const struct btf *btf, const char *type, const char *name, const char *inner)
{
	int id = btf__find_by_name_kind(btf, type, BTF_KIND_STRUCT), in = 0, at;

	at = id < 0 ? -1 : member(btf, id, name, &id);
	if (at >= 0 && inner)
		in = member(btf, id, inner, &id);
	if (at >= 0 && in >= 0)
		return at + in;
	fact_skip("everything", "where %s.%s is can't be found out", type, name);
	exit(0);
}

static int program(void)
{
	struct btf *btf = btf__load_vmlinux_btf();
	int nfct, sk, status, owned;

	if (!btf) {
		fact_skip("everything", "this kernel has no type information");
		exit(0);
	}
	nfct = offset(btf, "sk_buff", "_nfct", NULL);
	sk = offset(btf, "sk_buff", "sk", NULL);
	status = offset(btf, "nf_conn", "status", NULL);
	owned = offset(btf, "sock", "sk_lock", "owned");
	btf__free(btf);
	{
		struct bpf_insn insns[] = {
			BPF_LDX_MEM(BPF_DW, BPF_REG_6, BPF_REG_1, 8),
			BPF_LD_MAP_VALUE(BPF_REG_9, cells.fd, 0),
			BPF_LDX_MEM(BPF_DW, BPF_REG_7, BPF_REG_6, sk),
			BPF_JMP_IMM(BPF_JEQ, BPF_REG_7, 0, 0 /* to the end, see below */),
			BPF_LDX_MEM(BPF_DW, BPF_REG_8, BPF_REG_6, nfct),
			BPF_MOV64_REG(BPF_REG_1, BPF_REG_8),
			BPF_ALU64_IMM(BPF_AND, BPF_REG_1, 7),
			BPF_STX_MEM(BPF_DW, BPF_REG_9, BPF_REG_1, INFO * 8),
			/* The entry's status. */
			BPF_ALU64_IMM(BPF_AND, BPF_REG_8, ~7),
			BPF_ALU64_IMM(BPF_ADD, BPF_REG_8, status),
			BPF_MOV64_REG(BPF_REG_1, BPF_REG_9),
			BPF_ALU64_IMM(BPF_ADD, BPF_REG_1, STATUS * 8),
			BPF_MOV64_IMM(BPF_REG_2, 8),
			BPF_MOV64_REG(BPF_REG_3, BPF_REG_8),
			BPF_CALL_FUNC(BPF_FUNC_probe_read_kernel),
			/* Is the socket owned? */
			BPF_MOV64_REG(BPF_REG_1, BPF_REG_9),
			BPF_ALU64_IMM(BPF_ADD, BPF_REG_1, OWNED * 8),
			BPF_MOV64_IMM(BPF_REG_2, 4),
			BPF_MOV64_REG(BPF_REG_3, BPF_REG_7),
			BPF_ALU64_IMM(BPF_ADD, BPF_REG_3, owned),
			BPF_CALL_FUNC(BPF_FUNC_probe_read_kernel),
			/* Last, as the sign that the rest is there. */
			BPF_MOV64_IMM(BPF_REG_1, 1),
			BPF_ATOMIC_OP(BPF_DW, BPF_ADD, BPF_REG_9, BPF_REG_1, PACKETS * 8),
			BPF_MOV64_IMM(BPF_REG_0, NF_ACCEPT),
			BPF_EXIT_INSN(),
		};

		insns[4].off = (short)(sizeof(insns) / sizeof(insns[0]) - 7);
		return FACT_NETFILTER(insns);
	}
}

/* What the program saw last. */
static void saw(int packets, uint64_t info, bool confirmed, int owned, const char *name)
{
	for (int ms = 0; cells.c[PACKETS] < (uint64_t)packets && ms < FACT_PATIENCE_MS; ms++)
		poll(NULL, 0, 1);
	fact_check(cells.c[PACKETS] == (uint64_t)packets && cells.c[INFO] == info &&
			   !!(cells.c[STATUS] & IPS_CONFIRMED) == confirmed &&
			   (int)cells.c[OWNED] == owned,
		   name, "packet %d, info %d, status 0x%x, owned %d", (int)cells.c[PACKETS],
		   (int)cells.c[INFO], (unsigned)cells.c[STATUS], (int)cells.c[OWNED]);
}

int main(void)
{
	struct fact_udp udp;
	int fd;

	fact_init();
	if (system("nft --version >/dev/null 2>&1")) {
		fact_skip("everything", "there is no nft command");
		return fact_end();
	}
	/* An empty chain would not turn connection tracking on; a rule that translates does. */
	fact_sh("nft 'table ip nat { chain post { type nat hook postrouting priority srcnat; "
		"ip saddr 10.9.0.0/24 masquerade; }; }'");
	fact_sh("ip link add fact0 type veth peer name fact1 && ip link set fact0 up && "
		"ip link set fact1 up && ip addr add 192.0.2.1/24 dev fact0 && "
		"ip neigh add " NOBODY " lladdr 02:00:00:00:00:99 dev fact0");
	fact_netfilter_need();
	cells = fact_cells_new();
	MUST(fact_netfilter_link(program(), 101));

	udp = fact_udp_open();
	fact_udp_send(&udp, 1);
	saw(1, IP_CT_NEW, false, 0, "first_datagram");
	fact_udp_send(&udp, 1);
	saw(2, IP_CT_NEW, true, 0, "second_datagram");
	MUST(fact_connect(udp.rx, "127.0.0.1", fact_port(udp.tx, false)));
	MUST((int)send(udp.rx, "a", 1, 0));
	fact_udp_send(&udp, 1);
	saw(4, IP_CT_ESTABLISHED, true, 0, "after_an_answer");

	fd = fact_socket(SOCK_STREAM, "192.0.2.1", 0);
	MUST(fcntl(fd, F_SETFL, O_NONBLOCK));
	fact_check(fact_connect(fd, NOBODY, 80) < 0 && errno == EINPROGRESS, "connecting", "%s",
		   strerror(errno));
	saw(5, IP_CT_NEW, false, 1, "syn_of_a_process");
	saw(6, IP_CT_NEW, true, 0, "syn_sent_again");
	return fact_end();
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A recorder on one network device: counts what passes, checks ports and checksums, and knows whether
 * it saw everything.
 *
 *   wire --dev NAME [--source ADDR | --dest ADDR] [--ports A-B] [--in | --out] [--flows]
 *        [--users ADDR]
 *
 * --in (from the device, as the kernel receives it) or --out; default both. --source or --dest: only IPv4
 * packets with that address, chosen by a filter in the kernel. With --ports, the packet's port on the side
 * of that address (TCP and UDP port, ICMP query id, or the port inside what an ICMP error quotes) must
 * lie in A-B; what does not is counted as "outside", with the first few as samples. A packet that has no
 * such port (other protocols, fragments after the first) is outside too, since nobody can say whose it is.
 *
 * IP, TCP, UDP and ICMP checksums are verified. A packet whose checksum the sender left to the hardware
 * (CHECKSUM_PARTIAL, which a veth hands over as it is) counts as "not_ready" for its transport checksum.
 *
 * --flows prints a line for the first packet of each 5-tuple, and for each further TCP SYN of it:
 *   {"event":"flow","proto":"tcp","src":"203.0.113.7","sport":41000,"dst":"198.51.100.10","dport":80,
 *    "syn":true,"seen":1}
 *
 * --users ADDR looks for tuples that two users have at a time. A user is whoever sends data that begins with the head of a "churn" message, which carries its number.
 * Counted are, of packets from ADDR:
 *   shared     a number other than the connection's; of UDP, one that comes back after another one on its tuple
 *   reopened   a SYN with another sequence number on a connection that neither a RST nor two FINs have ended
 * with the first few as samples (how things stood on the tuple), and besides "connections" (SYNs that opened one) and "users" (of UDP). Both directions have to pass: no --in, --out, --source.
 *
 * Runs until SIGTERM or the end of stdin, then prints a report as one line. Exit status 0 if nothing was
 * outside, no checksum was wrong, nothing was malformed, no tuple had two users and the kernel dropped nothing ("lost"), else 1.
 */
#include "churn.h"
#include "tool.h"

#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#define RING_BLOCK  (1U << 20)
#define RING_BLOCKS 256
#define RING_TOV_MS 10
#define SAMPLES_MAX 8

static struct {
	const char *dev;
	bool has_addr, by_dest, has_ports, flows, users;
	uint32_t shared; /* address of --users, host byte order */
	uint32_t addr;   /* host byte order */
	uint16_t first, last;
	int direction; /* 0 both, 1 in, 2 out */
} opt;

enum l4 { TCP, UDP, ICMP, OTHER, L4_MAX };
static const char *const l4_names[L4_MAX] = { "tcp", "udp", "icmp", "other" };

static struct {
	uint64_t packets, bytes, not_ip, malformed, fragments;
	uint64_t by_l4[L4_MAX], outside_by_l4[L4_MAX];
	uint64_t ip_ok, ip_bad, l4_ok, l4_bad, not_ready, no_checksum;
	uint64_t outside;
	uint64_t shared, reopened, connections, users;
	uint64_t lost;
	uint16_t port_min[L4_MAX], port_max[L4_MAX];
	uint32_t ports[L4_MAX];
	uint32_t n_samples;
} rep;

static uint8_t port_seen[L4_MAX][8192];

struct tuple {
	uint32_t src, dst; /* host byte order, as the ports */
	uint16_t sport, dport;
	uint8_t proto;
};

struct packet {
	struct tuple t;
	enum l4 l4;
	bool has_ports; /* false: a later fragment, or a protocol or message without */
	bool syn, syn_ack;
	uint16_t own_port; /* on the side of --source or --dest */
	bool own_known;
};

/* --------------------------------------------------------------------------------------- 5-tuples */

struct flow {
	struct tuple t;
	uint32_t seen; /* 0: an empty place */
	/* With --users. */
	uint32_t isn;            /* of the last SYN */
	uint64_t user, previous; /* 0: none */
	bool opened, fin_out, fin_in, over;
	uint64_t opened_ns; /* when the last SYN that opened it came */
};

static struct flow *flows;
static size_t flows_cap, flows_used;

static uint64_t tuple_hash(const struct tuple *t)
{
	uint64_t h = ((uint64_t)t->src << 32 | t->dst) * 0x9e3779b97f4a7c15ULL;

	h ^= ((uint64_t)t->sport << 24 | (uint64_t)t->dport << 8 | t->proto) *
	     0xbf58476d1ce4e5b9ULL;
	return h ^ h >> 29;
}

static bool tuple_equal(const struct tuple *a, const struct tuple *b)
{
	return a->src == b->src && a->dst == b->dst && a->sport == b->sport &&
	       a->dport == b->dport && a->proto == b->proto;
}

static struct flow *flow_place(struct flow *tab, size_t cap, const struct tuple *t)
{
	size_t i = tuple_hash(t) & (cap - 1);

	while (tab[i].seen && !tuple_equal(&tab[i].t, t))
		i = (i + 1) & (cap - 1);
	return &tab[i];
}

static struct flow *flow_get(const struct tuple *t)
{
	struct flow *f;

	if (flows_used * 2 >= flows_cap) {
		size_t cap = flows_cap ? flows_cap * 2 : 4096;
		struct flow *tab = calloc(cap, sizeof(*tab));

		if (!tab)
			die("out of memory");
		for (size_t i = 0; i < flows_cap; i++)
			if (flows[i].seen)
				*flow_place(tab, cap, &flows[i].t) = flows[i];
		free(flows);
		flows = tab;
		flows_cap = cap;
	}
	f = flow_place(flows, flows_cap, t);
	if (!f->seen) {
		f->t = *t;
		flows_used++;
	}
	f->seen++;
	return f;
}

static const char *ip_text(uint32_t host, char buf[INET_ADDRSTRLEN])
{
	uint32_t be = htonl(host);

	return inet_ntop(AF_INET, &be, buf, INET_ADDRSTRLEN);
}

static void print_tuple(const struct packet *p)
{
	char src[INET_ADDRSTRLEN], dst[INET_ADDRSTRLEN];

	printf("\"proto\":\"%s\",\"src\":\"%s\",\"sport\":%u,\"dst\":\"%s\",\"dport\":%u",
	       l4_names[p->l4], ip_text(p->t.src, src), p->t.sport, ip_text(p->t.dst, dst),
	       p->t.dport);
}

/* ------------------------------------------------------------------------------------- checksums */

static uint16_t be16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t sum16(const uint8_t *p, size_t len, uint32_t sum)
{
	while (len > 1) {
		sum += (uint32_t)p[0] << 8 | p[1];
		p += 2;
		len -= 2;
	}
	if (len)
		sum += (uint32_t)p[0] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

static void check_l4(const struct packet *p, const uint8_t *l4, size_t len, bool not_ready)
{
	uint32_t sum = 0;

	if (p->l4 == OTHER)
		return;
	if (not_ready) {
		rep.not_ready++;
		return;
	}
	if (p->l4 == UDP && !l4[6] && !l4[7]) {
		rep.no_checksum++; /* RFC 768: the sender made none */
		return;
	}
	if (p->l4 == UDP) {
		size_t udp_len = be16(l4 + 4);

		if (udp_len < 8 || udp_len > len) {
			rep.l4_bad++;
			return;
		}
		len = udp_len;
	}
	if (p->l4 != ICMP) {
		sum = (p->t.src >> 16) + (p->t.src & 0xffff) + (p->t.dst >> 16) +
		      (p->t.dst & 0xffff) + p->t.proto + (uint32_t)len;
	}
	/* 64 KiB of 0xffff and the pseudo header stay below 2^32. */
	if (fold(sum16(l4, len, sum)) == 0xffff)
		rep.l4_ok++;
	else
		rep.l4_bad++;
}

/* --------------------------------------------------------------------------------------- packets */

/*
 * An ICMP error quotes the packet that caused it. Whoever sends an error from the shared address was the
 * receiver of that packet, so its own port is the quoted destination port.
 */
static bool quoted_port(const uint8_t *ip, size_t len, bool want_source, uint16_t *ret)
{
	size_t hlen;
	const uint8_t *l4;

	if (len < 20 || ip[0] >> 4 != 4)
		return false;
	hlen = (size_t)(ip[0] & 15) * 4;
	if (hlen < 20 || len < hlen + 8 || be16(ip + 6) & 0x1fff)
		return false;
	l4 = ip + hlen;
	if (ip[9] == IPPROTO_ICMP)
		*ret = be16(l4 + 4);
	else if (ip[9] == IPPROTO_TCP || ip[9] == IPPROTO_UDP)
		*ret = be16(l4 + (want_source ? 0 : 2));
	else
		return false;
	return true;
}

static void parse_icmp(struct packet *p, const uint8_t *l4, size_t len)
{
	switch (l4[0]) {
	case ICMP_ECHO:
	case ICMP_ECHOREPLY:
	case ICMP_TIMESTAMP:
	case ICMP_TIMESTAMPREPLY:
		p->t.sport = p->t.dport = p->own_port = be16(l4 + 4);
		p->has_ports = p->own_known = true;
		break;
	case ICMP_DEST_UNREACH:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETERPROB:
		p->own_known = quoted_port(l4 + 8, len - 8, opt.by_dest, &p->own_port);
		break;
	}
}

/* Fill p from an IPv4 packet. false: malformed. *ret_l4_len is the transport part's length. */
static bool parse_ip(struct packet *p, const uint8_t *ip, size_t caplen, const uint8_t **ret_l4,
		     size_t *ret_l4_len)
{
	static const uint8_t l4_min[L4_MAX] = { 20, 8, 8, 0 };
	size_t hlen, total, len;
	const uint8_t *l4;

	if (caplen < 20 || ip[0] >> 4 != 4)
		return false;
	hlen = (size_t)(ip[0] & 15) * 4;
	total = be16(ip + 2);
	if (hlen < 20 || total < hlen || total > caplen)
		return false;
	p->t.src = be32(ip + 12);
	p->t.dst = be32(ip + 16);
	p->t.proto = ip[9];
	p->l4 = ip[9] == IPPROTO_TCP    ? TCP
		: ip[9] == IPPROTO_UDP  ? UDP
		: ip[9] == IPPROTO_ICMP ? ICMP
					: OTHER;
	l4 = ip + hlen;
	len = total - hlen;
	*ret_l4 = l4;
	*ret_l4_len = len;
	if (be16(ip + 6) & 0x1fff)
		return true; /* a later fragment: no header to read */
	if (len < l4_min[p->l4])
		return be16(ip + 6) & 0x2000; /* only a first fragment may be that short */
	if (p->l4 == TCP || p->l4 == UDP) {
		p->t.sport = be16(l4);
		p->t.dport = be16(l4 + 2);
		p->has_ports = p->own_known = true;
		p->own_port = opt.by_dest ? p->t.dport : p->t.sport;
		p->syn = p->l4 == TCP && l4[13] & 0x02;
		p->syn_ack = p->syn && l4[13] & 0x10;
	} else if (p->l4 == ICMP) {
		parse_icmp(p, l4, len);
	}
	return true;
}

static void note_port(const struct packet *p)
{
	uint8_t *byte, bit;

	if (!p->own_known)
		return;
	byte = &port_seen[p->l4][p->own_port / 8];
	bit = (uint8_t)(1 << p->own_port % 8);
	if (!(*byte & bit)) {
		*byte |= bit;
		if (!rep.ports[p->l4] || p->own_port < rep.port_min[p->l4])
			rep.port_min[p->l4] = p->own_port;
		if (!rep.ports[p->l4] || p->own_port > rep.port_max[p->l4])
			rep.port_max[p->l4] = p->own_port;
		rep.ports[p->l4]++;
	}
}

static void note_flow(const struct packet *p)
{
	const struct flow *f = flow_get(&p->t);

	if (f->seen > 1 && !p->syn)
		return;
	printf("{\"event\":\"flow\",");
	print_tuple(p);
	printf(",\"syn\":%s,\"seen\":%u}\n", p->syn && !p->syn_ack ? "true" : "false", f->seen);
	fflush(stdout);
}

static void note_two(const struct packet *p, const struct flow *f, const char *what,
		     uint64_t *count)
{
	if ((*count)++ >= SAMPLES_MAX)
		return;
	printf("{\"event\":\"%s\",", what);
	print_tuple(p);
	printf(",\"user\":%llu,\"fin_out\":%s,\"fin_in\":%s,\"open_ms\":%llu}\n",
	       (unsigned long long)f->user, f->fin_out ? "true" : "false",
	       f->fin_in ? "true" : "false",
	       (unsigned long long)((now_ns() - f->opened_ns) / 1000000));
	fflush(stdout);
}

/* Whose data is it? 0: nobody's. */
static uint64_t user_of(const struct packet *p, const uint8_t *l4, size_t len)
{
	size_t head = p->l4 == TCP ? (size_t)(l4[12] >> 4) * 4 : 8;
	struct churn_message m;

	if (len < head + sizeof(m))
		return 0;
	memcpy(&m, l4 + head, sizeof(m));
	return m.magic == CHURN_ASKS ? m.user : 0;
}

static void note_answer(const struct packet *p, const uint8_t *l4)
{
	struct tuple t = { p->t.dst, p->t.src, p->t.dport, p->t.sport, p->t.proto };
	struct flow *f = flow_get(&t);

	f->fin_in |= l4[13] & 0x01;
	f->over |= l4[13] & 0x04 || (f->fin_in && f->fin_out);
}

static void note_user(const struct packet *p, const uint8_t *l4, size_t len)
{
	struct flow *f;
	uint64_t user;

	if (p->l4 == TCP && p->t.dst == opt.shared)
		note_answer(p, l4);
	if (p->t.src != opt.shared || (p->l4 != TCP && p->l4 != UDP))
		return;
	f = flow_get(&p->t);
	user = user_of(p, l4, len);
	if (p->l4 == UDP) {
		if (!user || user == f->user)
			return;
		if (user == f->previous)
			note_two(p, f, "shared", &rep.shared);
		rep.users++;
		f->previous = f->user;
		f->user = user;
		return;
	}
	if (p->syn && (!f->opened || f->isn != be32(l4 + 4))) {
		if (f->opened && !f->over)
			note_two(p, f, "reopened", &rep.reopened);
		rep.connections++;
		f->isn = be32(l4 + 4);
		f->opened = true;
		f->opened_ns = now_ns();
		f->user = 0;
		f->fin_out = f->fin_in = f->over = false;
	}
	f->fin_out |= l4[13] & 0x01;
	f->over |= l4[13] & 0x04 || (f->fin_in && f->fin_out);
	if (!user)
		return;
	if (f->user && f->user != user)
		note_two(p, f, "shared", &rep.shared);
	f->user = user;
}

static void note_outside(const struct packet *p)
{
	rep.outside++;
	rep.outside_by_l4[p->l4]++;
	if (rep.n_samples == SAMPLES_MAX)
		return;
	rep.n_samples++;
	printf("{\"event\":\"outside\",");
	print_tuple(p);
	printf("}\n");
	fflush(stdout);
}

static void handle(const uint8_t *frame, size_t len, size_t wire_len, bool not_ready)
{
	struct packet p = { 0 };
	const uint8_t *l4, *ip = frame + ETH_HLEN;
	size_t l4_len;
	bool fragment;

	rep.packets++;
	rep.bytes += wire_len;
	if (len < ETH_HLEN || be16(frame + 12) != ETH_P_IP) {
		rep.not_ip++;
		return;
	}
	if (!parse_ip(&p, ip, len - ETH_HLEN, &l4, &l4_len)) {
		rep.malformed++;
		return;
	}
	rep.by_l4[p.l4]++;
	fragment = be16(ip + 6) & 0x3fff;
	rep.fragments += fragment;
	if (fold(sum16(ip, (size_t)(ip[0] & 15) * 4, 0)) == 0xffff)
		rep.ip_ok++;
	else
		rep.ip_bad++;
	if (!fragment)
		check_l4(&p, l4, l4_len, not_ready);
	note_port(&p);
	if (opt.has_ports && (!p.own_known || p.own_port < opt.first || p.own_port > opt.last))
		note_outside(&p);
	if (opt.users && p.has_ports)
		note_user(&p, l4, l4_len);
	if (opt.flows && p.has_ports)
		note_flow(&p);
}

/* ----------------------------------------------------------------------------------------- socket */

static void attach_filter(int fd)
{
	struct sock_filter prog[16];
	struct sock_fprog fprog = { .filter = prog };
	unsigned short n = 0;

	/* Jumps over "drop" keep the program free of counted offsets: a test that fails falls into it. */
	if (opt.direction) {
		bool in = opt.direction == 1;

		prog[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
							 (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE));
		prog[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING,
							 in ? 0 : 1, in ? 1 : 0);
		prog[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
	}
	if (opt.has_addr) {
		prog[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12);
		prog[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 1, 0);
		prog[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
		prog[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
							 ETH_HLEN + (opt.by_dest ? 16 : 12));
		prog[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, opt.addr, 1, 0);
		prog[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, 0);
	}
	prog[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, ~0U);
	fprog.len = n;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &fprog, sizeof(fprog)))
		die("filter: %s", strerror(errno));
}

static int open_ring(uint8_t **ret_ring)
{
	struct tpacket_req3 req = {
		.tp_block_size = RING_BLOCK,
		.tp_block_nr = RING_BLOCKS,
		.tp_frame_size = 2048,
		.tp_frame_nr = RING_BLOCK / 2048 * RING_BLOCKS,
		.tp_retire_blk_tov = RING_TOV_MS,
	};
	struct sockaddr_ll ll = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int version = TPACKET_V3;
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0); /* deaf until it is bound */

	if (fd < 0)
		die("packet socket: %s", strerror(errno));
	ll.sll_ifindex = (int)if_nametoindex(opt.dev);
	if (!ll.sll_ifindex)
		die("no device \"%s\"", opt.dev);
	attach_filter(fd);
	if (setsockopt(fd, SOL_PACKET, PACKET_VERSION, &version, sizeof(version)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &req, sizeof(req)))
		die("packet ring: %s", strerror(errno));
	*ret_ring = mmap(NULL, (size_t)RING_BLOCK * RING_BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED,
			 fd, 0);
	if (*ret_ring == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	if (bind(fd, (struct sockaddr *)&ll, sizeof(ll)))
		die("bind to \"%s\": %s", opt.dev, strerror(errno));
	return fd;
}

/* Handle one block that the kernel handed over, and give it back. */
static void read_block(uint8_t *block)
{
	struct tpacket_block_desc *desc = (struct tpacket_block_desc *)block;
	struct tpacket3_hdr *h = (struct tpacket3_hdr *)(block + desc->hdr.bh1.offset_to_first_pkt);

	for (uint32_t i = 0; i < desc->hdr.bh1.num_pkts; i++) {
		handle((uint8_t *)h + h->tp_mac, h->tp_snaplen, h->tp_len,
		       h->tp_status & TP_STATUS_CSUMNOTREADY);
		h = (struct tpacket3_hdr *)((uint8_t *)h + h->tp_next_offset);
	}
	__atomic_store_n(&desc->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
}

static void count_lost(int fd)
{
	struct tpacket_stats_v3 st = { 0 };
	socklen_t len = sizeof(st);

	/* Reading resets the kernel's counter. */
	if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &st, &len))
		die("packet statistics: %s", strerror(errno));
	rep.lost += st.tp_drops;
}

static void record(int fd, uint8_t *ring)
{
	unsigned int next = 0;
	uint64_t end_ns = 0;

	/* After the signal, for a few block times more: what came before it may be in an open block. */
	while (!end_ns || now_ns() < end_ns) {
		struct tpacket_block_desc *desc =
			(struct tpacket_block_desc *)(ring + (size_t)next * RING_BLOCK);
		struct pollfd p[2] = {
			{ .fd = fd, .events = POLLIN },
			{ .fd = tool_stopped ? -1 : STDIN_FILENO, .events = POLLIN },
		};
		char scratch[256];

		if (__atomic_load_n(&desc->hdr.bh1.block_status, __ATOMIC_ACQUIRE) &
		    TP_STATUS_USER) {
			read_block((uint8_t *)desc);
			next = (next + 1) % RING_BLOCKS;
			continue;
		}
		if (tool_stopped && !end_ns)
			end_ns = now_ns() + 5ULL * RING_TOV_MS * 1000000;
		poll(p, 2, tool_stopped ? RING_TOV_MS : 1000);
		if (p[1].revents && read(STDIN_FILENO, scratch, sizeof(scratch)) <= 0)
			tool_stopped = 1;
	}
	count_lost(fd);
}

/* ----------------------------------------------------------------------------------------- report */

static void print_report(void)
{
	printf("{\"event\":\"report\",\"device\":\"%s\",\"packets\":%llu,\"bytes\":%llu,\"lost\":%"
	       "llu,",
	       opt.dev, (unsigned long long)rep.packets, (unsigned long long)rep.bytes,
	       (unsigned long long)rep.lost);
	printf("\"shared\":%llu,\"reopened\":%llu,\"connections\":%llu,\"users\":%llu,",
	       (unsigned long long)rep.shared, (unsigned long long)rep.reopened,
	       (unsigned long long)rep.connections, (unsigned long long)rep.users);
	printf("\"outside\":%llu,\"fragments\":%llu,\"malformed\":%llu,\"not_ip\":%llu,",
	       (unsigned long long)rep.outside, (unsigned long long)rep.fragments,
	       (unsigned long long)rep.malformed, (unsigned long long)rep.not_ip);
	for (int i = 0; i < L4_MAX; i++)
		printf("\"%s\":{\"packets\":%llu,\"outside\":%llu,\"ports\":%u,\"first\":%u,"
		       "\"last\":%u},",
		       l4_names[i], (unsigned long long)rep.by_l4[i],
		       (unsigned long long)rep.outside_by_l4[i], rep.ports[i], rep.port_min[i],
		       rep.port_max[i]);
	printf("\"checksums\":{\"ip_ok\":%llu,\"ip_bad\":%llu,\"l4_ok\":%llu,\"l4_bad\":%llu,"
	       "\"not_ready\":%llu,\"none\":%llu}}\n",
	       (unsigned long long)rep.ip_ok, (unsigned long long)rep.ip_bad,
	       (unsigned long long)rep.l4_ok, (unsigned long long)rep.l4_bad,
	       (unsigned long long)rep.not_ready, (unsigned long long)rep.no_checksum);
	fflush(stdout);
}

static uint32_t parse_ip4(const char *name, const char *text)
{
	struct in_addr a;

	if (inet_pton(AF_INET, text, &a) != 1)
		die("%s: \"%s\" is not an IPv4 address", name, text);
	return ntohl(a.s_addr);
}

static void parse_address(const char *name, const char *text)
{
	if (opt.has_addr)
		die("wire: one of --source and --dest");
	opt.addr = parse_ip4(name, text);
	opt.has_addr = true;
	opt.by_dest = !strcmp(name, "--dest");
}

int main(int argc, char **argv)
{
	uint8_t *ring;
	int fd;

	for (int i = 1; i < argc; i++) {
		const char *name = argv[i];
		bool has_value = i + 1 < argc;

		if (!strcmp(name, "--in"))
			opt.direction = 1;
		else if (!strcmp(name, "--out"))
			opt.direction = 2;
		else if (!strcmp(name, "--flows"))
			opt.flows = true;
		else if (!strcmp(name, "--dev") && has_value)
			opt.dev = argv[++i];
		else if (!strcmp(name, "--users") && has_value) {
			opt.shared = parse_ip4(name, argv[++i]);
			opt.users = true;
		} else if ((!strcmp(name, "--source") || !strcmp(name, "--dest")) && has_value)
			parse_address(name, argv[++i]);
		else if (!strcmp(name, "--ports") && has_value) {
			parse_ports(name, argv[++i], &opt.first, &opt.last);
			opt.has_ports = true;
		} else
			die("wire: unknown option \"%s\", or one without its value", name);
	}
	if (!opt.dev)
		die("usage: wire --dev NAME [--source ADDR | --dest ADDR] [--ports A-B] [--in | "
		    "--out] "
		    "[--flows] [--users ADDR]");
	tool_catch_signals();
	fd = open_ring(&ring);
	puts("{\"event\":\"ready\"}");
	fflush(stdout);
	record(fd, ring);
	print_report();
	close(fd);
	free(flows);
	return rep.lost || rep.shared || rep.reopened || rep.outside || rep.malformed ||
	       rep.ip_bad || rep.l4_bad;
}

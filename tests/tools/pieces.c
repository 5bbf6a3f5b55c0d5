/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Datagrams in pieces, IPv4 UDP. Every four bytes of a datagram say whose it is and which one, so that pieces of two in one are noticed.
 *
 *   pieces echo [--order DIGITS] [--short] ENDPOINT
 *       Answers every datagram with its own bytes, or (--short) with the first eight of them.
 *       {"event":"ready"}, and at the end {"event":"report","good":N,"mixed":N}
 *   pieces send [--order DIGITS] [--count N] [--size N] [--window N] [--mark N] [--id N] [--ids N] FROM ENDPOINT
 *       Sends N datagrams from FROM and waits for the answers, of at most so many at once.
 *       {"event":"done","sent":N,"answered":N,"mixed":N}. Exit status 0 when all were answered and nothing was mixed.
 *
 * --order: the tool cuts datagrams itself and sends the pieces in this order (for example 201), all but the last of them 1000 bytes, with
 * identifications that count up from --id, and begin there again after --ids. Otherwise the kernel does, and chooses.
 */
#include "tool.h"

#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <unistd.h>

#define DATAGRAM_MAX 8000
#define PIECE        1000
#define PATIENCE     3000 /* ms without any answer */

struct end {
	int udp, raw;
	const char *order; /* NULL: as the kernel does it */
	uint16_t id;       /* the first */
	uint32_t ids;      /* how many there are */
	uint32_t n;        /* datagrams sent */
};

static uint16_t udp_sum(const struct sockaddr_in *src, const struct sockaddr_in *dst,
			const uint8_t *p, size_t n)
{
	const uint8_t *a = (const uint8_t *)&src->sin_addr, *b = (const uint8_t *)&dst->sin_addr;
	uint64_t sum = IPPROTO_UDP + n;
	size_t i;

	for (i = 0; i < 4; i += 2)
		sum += (uint64_t)(a[i] << 8 | a[i + 1]) + (uint64_t)(b[i] << 8 | b[i + 1]);
	for (i = 0; i < n; i++)
		sum += i & 1 ? p[i] : (uint64_t)p[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum ?: 0xffff;
}

static void send_piece(const struct end *e, const struct sockaddr_in *src,
		       const struct sockaddr_in *dst, const uint8_t *l4, size_t all, size_t at)
{
	struct {
		struct iphdr ip;
		uint8_t data[PIECE];
	} piece = { .ip = { .version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP } };
	size_t n = all - at > PIECE ? PIECE : all - at;

	if (at >= all)
		die("--order: no piece at %zu of %zu bytes", at, all);
	piece.ip.saddr = src->sin_addr.s_addr;
	piece.ip.daddr = dst->sin_addr.s_addr;
	piece.ip.id = htons((uint16_t)(e->id + e->n % e->ids));
	piece.ip.frag_off = htons((uint16_t)(at / 8 | (at + n < all ? IP_MF : 0)));
	memcpy(piece.data, l4 + at, n);
	if (sendto(e->raw, &piece, sizeof(piece.ip) + n, 0, (const struct sockaddr *)dst,
		   sizeof(*dst)) < 0)
		die("raw sendto: %s", strerror(errno));
}

static void send_datagram(struct end *e, const struct sockaddr_in *src,
			  const struct sockaddr_in *dst, const uint8_t *data, size_t n)
{
	uint8_t l4[sizeof(struct udphdr) + DATAGRAM_MAX];
	struct udphdr udp = { .source = src->sin_port,
			      .dest = dst->sin_port,
			      .len = htons((uint16_t)(sizeof(udp) + n)) };
	const char *o;

	if (!e->order) {
		if (sendto(e->udp, data, n, 0, (const struct sockaddr *)dst, sizeof(*dst)) < 0)
			die("sendto: %s", strerror(errno));
		return;
	}
	memcpy(l4, &udp, sizeof(udp));
	memcpy(l4 + sizeof(udp), data, n);
	udp.check = htons(udp_sum(src, dst, l4, sizeof(udp) + n));
	memcpy(l4, &udp, sizeof(udp));
	for (o = e->order; *o; o++)
		send_piece(e, src, dst, l4, sizeof(udp) + n, (size_t)(*o - '0') * PIECE);
	e->n++;
}

/* Is every word the same? */
static bool whole(const uint8_t *data, size_t n)
{
	size_t i;

	for (i = 4; i + 4 <= n; i += 4)
		if (memcmp(data, data + i, 4))
			return false;
	return n >= 4;
}

static struct sockaddr_in v4(const char *what, const char *text)
{
	struct sockaddr_storage sa = parse_endpoint(what, text);
	struct sockaddr_in sin;

	if (sa.ss_family != AF_INET)
		die("%s: \"%s\" is not IPv4", what, text);
	memcpy(&sin, &sa, sizeof(sin));
	return sin;
}

static void end_open(struct end *e, const struct sockaddr_in *at)
{
	int pmtu = IP_PMTUDISC_DONT, room = 8 << 20;

	e->udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (e->udp < 0 || setsockopt(e->udp, IPPROTO_IP, IP_MTU_DISCOVER, &pmtu, sizeof(pmtu)) ||
	    setsockopt(e->udp, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(e->udp, (const struct sockaddr *)at, sizeof(*at)))
		die("UDP socket: %s", strerror(errno));
	e->raw = e->order ? socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW) : -1;
	if (e->order && e->raw < 0)
		die("raw socket: %s", strerror(errno));
}

static int run_echo(struct end *e, const struct sockaddr_in *at, bool brief)
{
	uint64_t good = 0, mixed = 0;
	uint8_t data[DATAGRAM_MAX];
	struct sockaddr_in from;
	socklen_t len;
	ssize_t n;

	end_open(e, at);
	puts("{\"event\":\"ready\"}");
	fflush(stdout);
	while (!tool_stopped) {
		len = sizeof(from);
		n = recvfrom(e->udp, data, sizeof(data), 0, (struct sockaddr *)&from, &len);
		if (n < 0)
			continue;
		if (!whole(data, (size_t)n)) {
			mixed++;
			continue;
		}
		good++;
		if (brief) {
			const char *order = e->order;

			e->order = NULL;
			send_datagram(e, at, &from, data, n < 8 ? (size_t)n : 8);
			e->order = order;
		} else {
			send_datagram(e, at, &from, data, (size_t)n);
		}
	}
	printf("{\"event\":\"report\",\"good\":%llu,\"mixed\":%llu}\n", (unsigned long long)good,
	       (unsigned long long)mixed);
	return 0;
}

static int run_send(struct end *e, const struct sockaddr_in *from, const struct sockaddr_in *to,
		    uint64_t count, size_t size, uint64_t window, uint32_t mark)
{
	uint64_t sent = 0, answered = 0, mixed = 0;
	uint8_t data[DATAGRAM_MAX];
	struct pollfd pfd;
	uint32_t word;
	ssize_t n;
	size_t i;

	end_open(e, from);
	pfd = (struct pollfd){ .fd = e->udp, .events = POLLIN };
	while (answered + mixed < count && !tool_stopped) {
		while (sent < count && sent - answered - mixed < window) {
			word = htonl(mark << 24 | (uint32_t)sent++);
			for (i = 0; i + 4 <= size; i += 4)
				memcpy(data + i, &word, 4);
			send_datagram(e, from, to, data, i);
		}
		if (poll(&pfd, 1, PATIENCE) != 1)
			break;
		n = recv(e->udp, data, sizeof(data), 0);
		if (n < 0)
			continue;
		memcpy(&word, data, 4);
		if (whole(data, (size_t)n) && ntohl(word) >> 24 == mark)
			answered++;
		else
			mixed++;
	}
	printf("{\"event\":\"done\",\"sent\":%llu,\"answered\":%llu,\"mixed\":%llu}\n",
	       (unsigned long long)sent, (unsigned long long)answered, (unsigned long long)mixed);
	return answered == count && !mixed ? 0 : 1;
}

int main(int argc, char **argv)
{
	uint64_t count = 1, size = 3000, window = 1, mark = 1;
	struct end e = { .id = 1, .ids = 10000 };
	struct sockaddr_in from, to;
	bool brief = false, echo;
	int i;

	tool_catch_signals();
	echo = argc > 1 && !strcmp(argv[1], "echo");
	if (!echo && (argc < 2 || strcmp(argv[1], "send")))
		die("usage: pieces echo|send ...");
	for (i = 2; i < argc && argv[i][0] == '-'; i++) {
		const char *value = i + 1 < argc ? argv[i + 1] : "";

		if (!strcmp(argv[i], "--short")) {
			brief = true;
			continue;
		}
		if (!strcmp(argv[i], "--order")) {
			if (!*value || value[strspn(value, "01234567")])
				die("--order: \"%s\" are not digits from 0 to 7", value);
			e.order = value;
		} else if (!strcmp(argv[i], "--count")) {
			count = parse_number("--count", value, 1, 1 << 24);
		} else if (!strcmp(argv[i], "--size")) {
			size = parse_number("--size", value, 4, DATAGRAM_MAX);
		} else if (!strcmp(argv[i], "--window")) {
			window = parse_number("--window", value, 1, 1000);
		} else if (!strcmp(argv[i], "--mark")) {
			mark = parse_number("--mark", value, 0, 255);
		} else if (!strcmp(argv[i], "--id")) {
			e.id = (uint16_t)parse_number("--id", value, 1, 65535);
		} else if (!strcmp(argv[i], "--ids")) {
			e.ids = (uint32_t)parse_number("--ids", value, 1, 65535);
		} else {
			die("unknown option \"%s\"", argv[i]);
		}
		i++;
	}
	/* With 0 the kernel would choose. */
	if (e.id + e.ids > 65536)
		die("--id and --ids: the last is more than 65535");
	if (argc - i != (echo ? 1 : 2))
		die("usage: pieces echo [OPTION...] ENDPOINT, pieces send [OPTION...] FROM "
		    "ENDPOINT");
	from = v4("endpoint", argv[i]);
	if (echo)
		return run_echo(&e, &from, brief);
	to = v4("endpoint", argv[i + 1]);
	return run_send(&e, &from, &to, count, size, window, (uint32_t)mark);
}

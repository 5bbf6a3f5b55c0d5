/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * host.c, icmp.c and doctor.c for shell scripts, in the network namespace that it is started in.
 *
 * links NAME...		find these uplinks: "NAME IFINDEX up|down MTU" each
 * monitor NAME...	find them, then print their events until it is killed
 * check CONF [-j]	findings of the host; exits with 2 when one is an error
 * doctor CONF [-j]	all findings
 * plan CONF		what prepare would change: "KIND KEY WAS NOW", "-" for an empty value
 * prepare CONF RECORD [K]	make the changes; RECORD gets the plan's lines before the first one. With K
 *			it kills itself after K changes
 * restore RECORD [K]	undo them, print the findings, leave in RECORD what is not done. With K it kills
 *			itself after K
 * src ADDRESS		"SOURCE IFINDEX" towards there
 * refuse INTERFACE ADDRESS RATE	answer each packet that INTERFACE brings for ADDRESS with an ICMP
 *			error, RATE a second at most; prints "sent N limited N failed N" each time
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "doctor.h"
#include "host.h"
#include "icmp.h"
#include "rate.h"

#define RECORDS_MAX 4096

static __attribute__((noreturn)) void fail(const struct errtext *err, int r)
{
	fprintf(stderr, "%s (%s)\n", err->s, strerrorname_np(-r));
	exit(2);
}

static struct host_session *open_host(void)
{
	struct host_session *h;
	struct errtext err = { 0 };
	int r = host_open(&h, &err);

	if (r < 0)
		fail(&err, r);
	return h;
}

static struct config *load(const char *path)
{
	struct config *c;
	struct errtext err = { 0 };
	int r = config_load(path, &c, &err);

	if (r < 0)
		fail(&err, r);
	return c;
}

static void print_changes(FILE *f, const struct host_change *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s %s %s %s\n", v[i].kind, v[i].key, *v[i].was ? v[i].was : "-",
			*v[i].now ? v[i].now : "-");
}

static void print_links(const struct host_link *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("%s %d %s %u\n", v[i].name, v[i].ifindex, v[i].up ? "up" : "down", v[i].mtu);
}

static int cmd_links(char **argv)
{
	struct host_session *h = open_host();
	struct host_link v[CONFIG_UPLINKS_MAX];
	struct errtext err = { 0 };
	size_t n = 0;

	while (argv[n])
		n++;
	int r = host_links(h, argv, n, v, &err);

	if (r < 0)
		fail(&err, r);
	print_links(v, n);
	host_close(h);
	return 0;
}

static int cmd_monitor(char **argv)
{
	struct host_session *h = open_host();
	struct host_link v[CONFIG_UPLINKS_MAX];
	struct host_link_event ev;
	struct errtext err = { 0 };
	size_t n = 0;

	while (argv[n])
		n++;
	int r = host_links(h, argv, n, v, &err);

	if (r < 0)
		fail(&err, r);
	printf("watching\n");
	for (;;) {
		struct pollfd p = { .fd = host_link_fd(h), .events = POLLIN };

		poll(&p, 1, -1);
		while ((r = host_link_event(h, &ev)) > 0) {
			if (ev.verb == HOST_LINK_CHANGED) {
				printf("changed ");
				print_links(&ev.link, 1);
			} else if (ev.verb == HOST_LINK_GONE) {
				printf("gone %s\n", ev.link.name);
			} else {
				printf("resync\n");
				if (host_links(h, argv, n, v, &err) == 0)
					print_links(v, n);
			}
		}
		if (r < 0)
			fail(&err, r);
	}
}

static int cmd_check(char **argv)
{
	struct host_session *h = open_host();
	struct config *c = load(argv[0]);
	struct findings fs = { 0 };
	struct errtext err = { 0 };
	int r = host_check(h, c, &fs, &err);

	if (r < 0)
		fail(&err, r);
	r = doctor_print(stdout, &fs, argv[1] != NULL);
	findings_done(&fs);
	config_free(c);
	host_close(h);
	return r;
}

static int cmd_doctor(char **argv)
{
	struct config *c = load(argv[0]);
	struct findings fs = { 0 };

	doctor_run(c, &fs);
	int r = doctor_print(stdout, &fs, argv[1] != NULL);

	findings_done(&fs);
	config_free(c);
	return r;
}

static int cmd_plan(char **argv)
{
	struct host_session *h = open_host();
	struct config *c = load(argv[0]);
	struct host_change *v;
	struct errtext err = { 0 };
	size_t n;
	int r = host_plan(h, c, &v, &n, &err);

	if (r < 0)
		fail(&err, r);
	print_changes(stdout, v, n);
	free(v);
	config_free(c);
	host_close(h);
	return 0;
}

struct record {
	const char *path;
	struct host_session *h;
	int die_after; /* -1: never */
};

static int record(void *arg, const struct host_change *v, size_t n, struct errtext *err)
{
	const struct record *rec = arg;
	FILE *f = fopen(rec->path, "a");

	if (!f)
		return errtext_set(err, errno, "%s: %s", rec->path, strerror(errno));
	print_changes(f, v, n);
	if (fclose(f))
		return errtext_set(err, EIO, "%s: not written", rec->path);
	if (rec->die_after < 0)
		return 0;
	if ((size_t)rec->die_after < n)
		n = (size_t)rec->die_after;
	int r = host_apply(rec->h, v, n, err);

	if (r < 0)
		return r;
	kill(getpid(), SIGKILL);
	return -EIO;
}

static int cmd_prepare(char **argv)
{
	struct host_session *h = open_host();
	struct config *c = load(argv[0]);
	struct record rec = { argv[1], h, argv[2] ? atoi(argv[2]) : -1 };
	struct errtext err = { 0 };
	int r = host_prepare(h, c, &(struct host_recorder){ record, &rec }, &err);

	if (r < 0)
		fail(&err, r);
	config_free(c);
	host_close(h);
	return 0;
}

/* Like the store: a thing's first "was" counts, and the latest thing comes first. Returns how many. */
static size_t load_record(const char *path, struct host_change *v)
{
	char kind[16], key[128], was[64], now[64];
	FILE *f = fopen(path, "r");
	size_t n = 0;

	if (!f)
		return 0;
	while (n < RECORDS_MAX && fscanf(f, "%15s %127s %63s %63s", kind, key, was, now) == 4) {
		struct host_change ch;
		size_t i = 0;

		if (host_change_set(&ch, kind, key, strcmp(was, "-") ? was : "",
				    strcmp(now, "-") ? now : "") < 0)
			exit(2);
		while (i < n && (strcmp(v[i].kind, ch.kind) || strcmp(v[i].key, ch.key)))
			i++;
		if (i == n)
			v[n++] = ch;
		else
			memcpy(v[i].now, ch.now, sizeof(ch.now));
	}
	fclose(f);
	for (size_t i = 0; i < n / 2; i++) {
		struct host_change ch = v[i];

		v[i] = v[n - 1 - i];
		v[n - 1 - i] = ch;
	}
	return n;
}

static int cmd_restore(char **argv)
{
	static struct host_change v[RECORDS_MAX];
	static bool done[RECORDS_MAX];
	struct host_session *h = open_host();
	struct findings fs = { 0 };
	size_t n = load_record(argv[0], v);

	if (argv[1]) {
		size_t k = (size_t)atoi(argv[1]);

		(void)host_restore(h, v, k < n ? k : n, done, &fs);
		kill(getpid(), SIGKILL);
	}
	(void)host_restore(h, v, n, done, &fs);

	FILE *f = fopen(argv[0], "w");

	if (!f)
		return 2;
	for (size_t i = n; i-- > 0;)
		if (!done[i])
			print_changes(f, &v[i], 1);
	fclose(f);

	int r = doctor_print(stdout, &fs, false);

	findings_done(&fs);
	host_close(h);
	return r;
}

static int cmd_src(char **argv)
{
	struct host_session *h = open_host();
	struct addr dst, src;
	char text[ADDR_STRLEN];
	int ifindex, r = addr_parse(argv[0], &dst);

	if (r == 0)
		r = host_src_towards(h, &dst, &src, &ifindex);
	if (r < 0)
		printf("%s\n", strerrorname_np(-r));
	else
		printf("%s %d\n", addr_format(&src, text), ifindex);
	host_close(h);
	return r < 0 ? 2 : 0;
}

static int cmd_refuse(char **argv)
{
	struct sockaddr_ll at = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP) }, from;
	uint8_t packet[ICMP_QUOTE_MAX], msg[ICMP_MSG_MAX];
	uint32_t only = inet_addr(argv[1]), per_s = (uint32_t)atoi(argv[2]);
	unsigned int sent = 0, failed = 0;
	int out = icmp_open(), in = socket(AF_PACKET, SOCK_DGRAM, 0);
	struct rate rate;

	at.sll_ifindex = (int)if_nametoindex(argv[0]);
	if (out < 0 || in < 0 || bind(in, (struct sockaddr *)&at, sizeof(at)) < 0) {
		perror("refuse");
		return 2;
	}
	rate_init(&rate, per_s, per_s, 0);
	printf("watching\n");
	for (;;) {
		struct timespec ts;
		uint32_t dst;
		size_t len;
		ssize_t n = recvfrom(in, packet, sizeof(packet), 0, (struct sockaddr *)&from,
				     &(socklen_t){ sizeof(from) });

		if (n < 20 || from.sll_pkttype != PACKET_HOST || memcmp(packet + 16, &only, 4))
			continue;
		if (icmp_unreachable_build(packet, (size_t)n, msg, &len, &dst) < 0) {
			failed++;
		} else {
			clock_gettime(CLOCK_BOOTTIME, &ts);
			if (rate_take(&rate,
				      (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec)) {
				if (icmp_send(out, msg, len, dst) == 0)
					sent++;
				else
					failed++;
			}
		}
		printf("sent %u limited %llu failed %u\n", sent, (unsigned long long)rate.refused,
		       failed);
	}
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int args;
		int (*fn)(char **argv);
	} cmds[] = {
		{ "links", 1, cmd_links },     { "monitor", 1, cmd_monitor },
		{ "check", 1, cmd_check },     { "doctor", 1, cmd_doctor },
		{ "plan", 1, cmd_plan },       { "prepare", 2, cmd_prepare },
		{ "restore", 1, cmd_restore }, { "src", 1, cmd_src },
		{ "refuse", 3, cmd_refuse },
	};

	setlinebuf(stdout);
	for (size_t i = 0; i < sizeof(cmds) / sizeof(cmds[0]); i++)
		if (argc > 1 + cmds[i].args && !strcmp(argv[1], cmds[i].name))
			return cmds[i].fn(argv + 2);
	fprintf(stderr, "usage: see the head of hosttool.c\n");
	return 1;
}

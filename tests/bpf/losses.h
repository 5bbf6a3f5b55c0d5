/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where a datagram from a neighbour to a socket of the machine can get lost (see sockets.h): every counter on its way, so that a test that misses one can tell
 * where it went. The CPUs' backlogs are the whole machine's.
 */
#ifndef LOSSES_H
#define LOSSES_H

#include <inttypes.h>

#include "sockets.h"

struct loss_counter {
	const int *ns;
	const char *file;  /* below /proc/thread-self/net */
	const char *group; /* two lines begin with it: the fields' names, and their values */
	const char *field;
	const char *what;
};

static const struct loss_counter loss_counters[] = {
	{ &ns_inside, "snmp", "Udp:", "SndbufErrors", "the sender's buffer was full" },
	{ &ns_inside, "snmp", "Ip:", "OutNoRoutes", "the sender had no route" },
	{ &ns_inside, "snmp", "Ip:", "OutDiscards", "the sender's IP gave it up" },
	{ &ns_inside, "snmp", "Icmp:", "OutDestUnreachs", "the neighbour did not answer ARP" },
	{ &ns_machine, "snmp", "Ip:", "InHdrErrors", "the machine's IP saw a bad header" },
	{ &ns_machine, "snmp", "Ip:", "InAddrErrors", "the machine's IP did not know the address" },
	{ &ns_machine, "snmp", "Ip:", "InDiscards", "the machine's IP gave it up" },
	{ &ns_machine, "netstat", "TcpExt:", "IPReversePathFilter", "the reverse path filter" },
	{ &ns_machine, "snmp", "Udp:", "NoPorts", "sk_lookup found no socket, or refused" },
	{ &ns_machine, "snmp", "Udp:", "RcvbufErrors", "a socket's receive buffer was full" },
	{ &ns_machine, "snmp", "Udp:", "MemErrors", "UDP had no memory" },
	{ &ns_machine, "snmp", "Udp:", "InCsumErrors", "the checksum was wrong" },
};
#define N_LOSS_COUNTERS (sizeof(loss_counters) / sizeof(loss_counters[0]))

struct losses {
	uint64_t counters[N_LOSS_COUNTERS];
	uint64_t links;   /* dropped at both ends of the link inside */
	uint64_t softnet; /* the backlog of a CPU was full */
	struct sluice_count sluice[SLUICE_REASON_MAX];
};

static inline FILE *losses_file(int ns, const char *name)
{
	char path[64];
	FILE *f;

	ns_enter(ns);
	snprintf(path, sizeof(path), "/proc/thread-self/net/%s", name);
	f = fopen(path, "r");
	ns_enter(ns_machine);
	if (!f)
		die("%s: %s", path, strerror(errno));
	return f;
}

/* 0 where this kernel has no such field. */
static inline uint64_t losses_field(const struct loss_counter *c)
{
	char names[4096], values[4096], *at_name = names, *at_value = values, *name, *value;
	FILE *f = losses_file(*c->ns, c->file);
	uint64_t n = 0;

	while (fgets(names, sizeof(names), f) && fgets(values, sizeof(values), f)) {
		if (strncmp(names, c->group, strlen(c->group)))
			continue;
		while ((name = strsep(&at_name, " \n")) && (value = strsep(&at_value, " \n")))
			if (!strcmp(name, c->field))
				n = strtoull(value, NULL, 10);
		break;
	}
	fclose(f);
	return n;
}

static inline uint64_t losses_link(int ns, const char *dev)
{
	uint64_t rx, tx, n = 0;
	char line[512], name[32];
	FILE *f = losses_file(ns, "dev");

	while (fgets(line, sizeof(line), f))
		if (sscanf(line,
			   " %31[^:]: %*u %*u %*u %" SCNu64 " %*u %*u %*u %*u %*u %*u %*u %" SCNu64,
			   name, &rx, &tx) == 3 &&
		    !strcmp(name, dev))
			n = rx + tx;
	fclose(f);
	return n;
}

/* Second column of each CPU's line, hexadecimal. */
static inline uint64_t losses_softnet(void)
{
	FILE *f = losses_file(ns_machine, "softnet_stat");
	uint64_t n = 0, dropped;
	char line[512];

	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*x %" SCNx64, &dropped) == 1)
			n += dropped;
	fclose(f);
	return n;
}

static inline void losses_read(const struct dp *dp, struct losses *ret)
{
	for (size_t i = 0; i < N_LOSS_COUNTERS; i++)
		ret->counters[i] = losses_field(&loss_counters[i]);
	ret->links = losses_link(ns_machine, "in0") + losses_link(ns_inside, "peer");
	ret->softnet = losses_softnet();
	assert_int_equal(dp_drops(dp, ret->sluice), 0);
}

/* Returns n. */
static inline uint64_t losses_tell_one(uint64_t n, const char *name, const char *what)
{
	if (n)
		print_error("lost on the way: %" PRIu64 " x %s (%s)\n", n, name, what);
	return n;
}

/* What was counted since. */
static inline void losses_tell(const struct dp *dp, const struct losses *before)
{
	uint64_t told = 0;
	struct losses now;

	losses_read(dp, &now);
	for (size_t i = 0; i < N_LOSS_COUNTERS; i++)
		told += losses_tell_one(now.counters[i] - before->counters[i],
					loss_counters[i].field, loss_counters[i].what);
	told += losses_tell_one(now.links - before->links, "drop", "at in0 or its peer");
	told += losses_tell_one(now.softnet - before->softnet, "softnet drop",
				"some CPU's backlog was full, by anybody's packets");
	for (int i = 0; i < SLUICE_REASON_MAX; i++)
		told += losses_tell_one(now.sluice[i].packets - before->sluice[i].packets,
					reason_name(i), "dropped by sluice");
	if (!told)
		print_error("no counter on the way has moved\n");
}

#endif

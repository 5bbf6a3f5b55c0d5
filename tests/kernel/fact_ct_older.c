/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether the end of an entry is told is settled when it is made. With net.netfilter.nf_conntrack_events=1 it is, whoever listens then. With 2, the default since Linux 5.19, only if
 * somebody on the machine, in whichever namespace, listened for connection tracking events; so of that mode the program shows what happened, which others may have decided.
 */
#include "fact_ct.h"

/* Flows of one port each, made before and after somebody listens, end; which of them is told? */
static void ends_told(const char *mode, uint16_t port, bool *ret_older, bool *ret_newer)
{
	struct fact_ct c;
	int fd;

	*ret_older = *ret_newer = false;
	fact_write("/proc/sys/net/netfilter/nf_conntrack_events", mode);
	fact_ct_flow(FACT_SHARED, port);
	fd = fact_ct_open();
	fact_ct_join(fd, NFNLGRP_CONNTRACK_DESTROY);
	fact_ct_flow(FACT_SHARED, (uint16_t)(port + 1));
	fact_sh("conntrack -F >/dev/null 2>&1");
	while (fact_ct_next(fd, &c)) {
		*ret_older |= c.sport == port;
		*ret_newer |= c.sport == port + 1;
	}
	close(fd);
}

int main(void)
{
	bool older, newer;

	if (!fact_ct_init("older"))
		return fact_end();
	fact_socket(SOCK_DGRAM, FACT_ORIGIN, 9);
	ends_told("2", 42000, &older, &newer);
	fact_check(newer, "listened_to", "the end of a flow made while we listened was not told");
	printf("# with 2, the end of an older flow was %s\n", older ? "told" : "not told");
	ends_told("1", 42100, &older, &newer);
	fact_check(older && newer, "always", "older flow: %d, newer flow: %d", older, newer);
	ends_told("0", 42200, &older, &newer);
	fact_check(!older && !newer, "never", "older flow: %d, newer flow: %d", older, newer);
	return fact_end();
}

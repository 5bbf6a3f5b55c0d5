/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A listener whose receive buffer was full gets ENOBUFS once, and then no event, whatever room there is meanwhile, until it has read its queue empty. So the dump that makes up for
 * the loss has to begin afterwards: what was made earlier may be neither told nor in the part of the table that is still to be dumped.
 */
#include "fact_ct.h"

int main(void)
{
	int fd, small = 16384, read_before = 0, read_after = 0, overruns = 0;
	struct fact_ct c = { 0 }, last = { 0 };
	uint16_t port = 20000;

	if (!fact_ct_init("congested"))
		return fact_end();
	fact_socket(SOCK_DGRAM, FACT_ORIGIN, 9);
	fd = fact_ct_open();
	MUST(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
	fact_ct_join(fd, NFNLGRP_CONNTRACK_NEW);
	for (int i = 0; i < 500; i++)
		fact_ct_flow(FACT_CLIENT, port++);
	fact_check(!fact_ct_next(fd, &c) && errno == ENOBUFS, "enobufs_comes_first", "errno %d",
		   errno);

	/* Make room for half of them, and more happens: it is not told, although there is room, and no error says so. */
	while (read_before < 8 && fact_ct_next(fd, &c))
		read_before++;
	fact_ct_flow(FACT_CLIENT, 60000);
	for (;;) {
		if (fact_ct_next(fd, &c)) {
			last = c;
			read_after++;
		} else if (errno == ENOBUFS) {
			overruns++;
		} else {
			break;
		}
	}
	printf("# %d and %d events were read\n", read_before, read_after);
	fact_check(read_before == 8 && read_after > 0 && last.sport != 60000 && !overruns,
		   "silent_until_empty",
		   "%d, then %d events, the last of port %u, ENOBUFS %d times", read_before,
		   read_after, last.sport, overruns);
	fact_ct_flow(FACT_CLIENT, 60001);
	fact_check(fact_ct_next(fd, &c) && c.sport == 60001, "flows_again", "port %u, errno %d",
		   c.sport, errno);
	return fact_end();
}

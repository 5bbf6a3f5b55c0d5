/* SPDX-License-Identifier: BSD-2-Clause */
/* Pinned maps and links survive the SIGKILL of the process that made them, without one packet missed. */
#include <signal.h>
#include <sys/wait.h>

#include "fact.h"

/* The process to be killed: load, attach, pin, tell, and hold everything open. */
static void loader(int tell)
{
	struct fact_cells cells = fact_cells_new();
	int prog = fact_counter(&cells, 0, -1);
	int link = bpf_link_create(prog, (int)if_nametoindex("lo"), FACT_TCX_EGRESS, NULL);

	MUST(bpf_obj_pin(cells.fd, FACT_BPFFS "/map"));
	if (link >= 0)
		MUST(bpf_obj_pin(link, FACT_BPFFS "/link"));
	else
		fact_clsact(prog, "lo");
	MUST((int)write(tell, "x", 1));
	for (;;)
		pause();
}

int main(void)
{
	uint64_t cells[FACT_CELLS] = { 0 };
	struct fact_udp udp;
	int tell[2], map, key = 0, status;
	char byte;
	pid_t pid;

	fact_init();
	udp = fact_udp_open();
	MUST(pipe2(tell, O_CLOEXEC));
	pid = MUST(fork());
	if (!pid)
		loader(tell[1]);
	close(tell[1]);
	if (read(tell[0], &byte, 1) != 1)
		return 1; /* the loader has said why */

	fact_udp_send(&udp, 500);
	MUST(kill(pid, SIGKILL));
	fact_udp_send(&udp, 500);
	MUST(waitpid(pid, &status, 0));
	fact_udp_send(&udp, 500);

	fact_check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "loader_killed",
		   "it ended with status %#x", (unsigned)status);
	map = bpf_obj_get(FACT_BPFFS "/map");
	if (!fact_check(map >= 0, "pin_opens", "%s", strerror(errno)))
		return fact_end();
	MUST(bpf_map_lookup_elem(map, &key, cells));
	fact_check(cells[0] == 1500, "no_packet_missed", "the program saw %d of 1500 packets",
		   (int)cells[0]);
	return fact_end();
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* A directory of pins can be renamed as a whole: fill a temporary one, then put it in place in one step. */
#include <sys/stat.h>

#include "fact.h"

int main(void)
{
	struct fact_cells cells;
	uint64_t value[FACT_CELLS] = { 0 };
	int fd, key = 0, rc;

	fact_init();
	cells = fact_cells_new();
	cells.c[0] = 4711;
	MUST(mkdir(FACT_BPFFS "/new", 0700));
	MUST(bpf_obj_pin(cells.fd, FACT_BPFFS "/new/map"));
	MUST(bpf_obj_pin(fact_counter(&cells, 1, 0), FACT_BPFFS "/new/prog"));
	close(cells.fd);

	rc = rename(FACT_BPFFS "/new", FACT_BPFFS "/live");
	fact_check(rc == 0, "rename", "%s", strerror(errno));
	fd = bpf_obj_get(FACT_BPFFS "/live/map");
	if (fact_check(fd >= 0, "map_opens_at_new_path", "%s", strerror(errno))) {
		MUST(bpf_map_lookup_elem(fd, &key, value));
		fact_check(value[0] == 4711, "map_keeps_its_values", "found %llu",
			   (unsigned long long)value[0]);
	}
	fd = bpf_obj_get(FACT_BPFFS "/live/prog");
	fact_check(fd >= 0, "program_opens_at_new_path", "%s", strerror(errno));
	fact_check(bpf_obj_get(FACT_BPFFS "/new/map") == -ENOENT, "old_path_is_gone",
		   "it still opens");

	/* A directory that is in use is not replaced by mistake. */
	MUST(mkdir(FACT_BPFFS "/new", 0700));
	rc = rename(FACT_BPFFS "/new", FACT_BPFFS "/live");
	fact_check(rc < 0 && errno == ENOTEMPTY, "rename_over_pins_refused", "returned %d (%s)", rc,
		   strerror(errno));
	return fact_end();
}

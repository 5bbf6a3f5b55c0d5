/* SPDX-License-Identifier: BSD-2-Clause */
/* A syscall program that walks a hash map with bpf_for_each_map_elem() may delete the element it visits. */
#include <bpf/btf.h>

#include "fact.h"

#define ENTRIES     10000
#define CALLBACK_AT 14 /* instruction where the callback begins */

/* A callback must be a static function by BTF. Returns the BTF's descriptor and fills info for both functions. */
static int describe(struct bpf_func_info info[2])
{
	struct btf *btf = btf__new_empty();
	int type, proto;

	MUST(libbpf_get_error(btf) ? -1 : 0);
	type = MUST(btf__add_int(btf, "long", 8, BTF_INT_SIGNED));
	proto = MUST(btf__add_func_proto(btf, type));
	info[0].insn_off = 0;
	info[0].type_id = (uint32_t)MUST(btf__add_func(btf, "walk", BTF_FUNC_GLOBAL, proto));
	proto = MUST(btf__add_func_proto(btf, type));
	MUST(btf__add_func_param(btf, "map", type));
	MUST(btf__add_func_param(btf, "key", type));
	MUST(btf__add_func_param(btf, "value", type));
	MUST(btf__add_func_param(btf, "ctx", type));
	info[1].insn_off = CALLBACK_AT;
	info[1].type_id = (uint32_t)MUST(btf__add_func(btf, "visit", BTF_FUNC_STATIC, proto));
	MUST(btf__load_into_kernel(btf));
	return btf__fd(btf);
}

static int load(int map, const struct fact_cells *cells)
{
	struct bpf_insn insns[] = {
		/* c[0] = for_each(map, visit, a context that is not used, 0) */
		BPF_LD_MAP_FD(BPF_REG_1, map),
		BPF_LD_FUNC(BPF_REG_2, CALLBACK_AT - 2 - 1),
		BPF_ST_MEM(BPF_DW, BPF_REG_10, -8, 0),
		BPF_MOV64_REG(BPF_REG_3, BPF_REG_10),
		BPF_ALU64_IMM(BPF_ADD, BPF_REG_3, -8),
		BPF_MOV64_IMM(BPF_REG_4, 0),
		BPF_CALL_FUNC(BPF_FUNC_for_each_map_elem),
		BPF_LD_MAP_VALUE(BPF_REG_1, cells->fd, 0),
		BPF_STX_MEM(BPF_DW, BPF_REG_1, BPF_REG_0, 0),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
		/* visit: delete what has a value other than zero, go on */
		BPF_LDX_MEM(BPF_W, BPF_REG_5, BPF_REG_3, 0),
		BPF_JMP_IMM(BPF_JEQ, BPF_REG_5, 0, 1),
		BPF_CALL_FUNC(BPF_FUNC_map_delete_elem),
		BPF_MOV64_IMM(BPF_REG_0, 0),
		BPF_EXIT_INSN(),
	};
	struct bpf_func_info info[2];
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .prog_flags = BPF_F_SLEEPABLE,
		    .prog_btf_fd = (uint32_t)describe(info), .func_info = info, .func_info_cnt = 2,
		    .func_info_rec_size = sizeof(info[0]));

	return fact_prog_opts(BPF_PROG_TYPE_SYSCALL, insns, sizeof(insns) / sizeof(insns[0]),
			      &opts);
}

static int run(int prog)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts);

	return bpf_prog_test_run_opts(prog, &opts);
}

int main(void)
{
	struct fact_cells cells;
	uint32_t key, value;
	int map, prog, left = 0, wrong = 0;

	fact_init();
	cells = fact_cells_new();
	map = MUST(bpf_map_create(BPF_MAP_TYPE_HASH, "walk", 4, 4, ENTRIES, NULL));
	for (key = 0; key < ENTRIES; key++) {
		value = key % 3;
		MUST(bpf_map_update_elem(map, &key, &value, BPF_NOEXIST));
	}
	prog = load(map, &cells);
	MUST(run(prog));
	fact_check(cells.c[0] == ENTRIES, "for_each_visits_all", "%d of %d elements visited",
		   (int)cells.c[0], ENTRIES);

	for (key = 0; key < ENTRIES; key++) {
		bool there = !bpf_map_lookup_elem(map, &key, &value);

		left += there;
		wrong += there != (key % 3 == 0);
	}
	fact_check(wrong == 0, "for_each_deletes", "%d left, %d of them or of the deleted wrong",
		   left, wrong);
	MUST(run(prog));
	fact_check(cells.c[0] == (uint64_t)left, "for_each_again", "%d of %d visited",
		   (int)cells.c[0], left);
	return fact_end();
}

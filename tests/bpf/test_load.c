/* SPDX-License-Identifier: BSD-2-Clause */
/* Loading: the verifier takes the programs, at a cost with room to spare, and the maps are what sluice_abi.h says. */
#include "harness.h"

#define BUDGET 500000 /* instructions that the verifier walks; the kernel gives up at a million */

static void budget(const struct bpf_program *prog, enum bpf_prog_type type)
{
	struct bpf_prog_info info = { 0 };
	__u32 len = sizeof(info);

	if (bpf_obj_get_info_by_fd(bpf_program__fd(prog), &info, &len))
		die("%s: %s", bpf_program__name(prog), strerror(errno));
	print_message("%-16s %6u instructions verified, %5u in the program\n",
		      bpf_program__name(prog), info.verified_insns, info.xlated_prog_len / 8);
	assert_int_equal(info.type, type);
	assert_true(info.verified_insns > 0);
	assert_true(info.verified_insns <= BUDGET);
}

static void test_verifier_budget(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b, 1024);
	budget(b.nat->progs.uplink_egress, BPF_PROG_TYPE_SCHED_CLS);
	budget(b.nat->progs.uplink_ingress, BPF_PROG_TYPE_SCHED_CLS);
	budget(b.nat->progs.sweep, BPF_PROG_TYPE_SYSCALL);
	bed_close(&b);
}

static void test_maps(void **state)
{
	struct bed b;

	(void)state;
	bed_open(&b, 1024);
	{
		const struct {
			struct bpf_map *map;
			const char *name;
			uint32_t key, value, rows;
		} want[] = {
#define M(name, key, value, rows) { b.nat->maps.name, #name, key, value, rows }
			M(conf, 4, sizeof(struct sluice_conf), 1),
			M(addrs, sizeof(union sluice_addr), sizeof(struct sluice_addr_row),
			  SLUICE_MAX_ADDRS),
			M(slices, 4, sizeof(struct sluice_slice), SLUICE_MAX_SLICES),
			M(pools, 4, sizeof(struct sluice_pool), SLUICE_MAX_POOLS),
			M(blocks, 4, sizeof(struct sluice_block), SLUICE_MAX_BLOCKS),
			M(fwd, sizeof(struct sluice_flow_key), sizeof(struct sluice_flow), 1024),
			M(rev, sizeof(struct sluice_flow_key), sizeof(struct sluice_flow), 1024),
			M(clients, sizeof(struct sluice_lpm_key), 4, SLUICE_MAX_PREFIXES),
			M(no_nat, sizeof(struct sluice_lpm_key), 4, SLUICE_MAX_PREFIXES),
			M(onlink, sizeof(struct sluice_lpm_key), 4, SLUICE_MAX_PREFIXES),
			M(leases, sizeof(struct sluice_port_key), sizeof(struct sluice_lease),
			  SLUICE_MAX_LEASED),
			M(execs, 8, sizeof(struct sluice_exec), SLUICE_MAX_EXECS),
			M(steered, 4, 8, SLUICE_MAX_STEERED),
			M(owners, 8, sizeof(struct sluice_owner), SLUICE_MAX_OWNERS),
			M(port_flows, 4, sizeof(struct sluice_port_flows),
			  SLUICE_MAX_BLOCKS / 3 * 2),
			M(reported, 8, 4, 16384),
			M(released, 4, 4, SLUICE_MAX_SLICES),
			M(use_bits, 4, 8, SLUICE_MAX_BLOCKS),
			M(drops, 4, sizeof(struct sluice_count), SLUICE_REASON_MAX),
			M(pool_stats, 4, sizeof(struct sluice_pool_stats), SLUICE_MAX_POOLS),
			M(event_stats, 4, sizeof(struct sluice_event_stats), SLUICE_EVENT_ROWS),
			M(zones, 4, 2, SLUICE_MAX_ZONES),
			M(zone_ways, 4, 4, SLUICE_MAX_ZONES),
			M(l3_links, 4, 4, SLUICE_MAX_ZONES),
			M(client_state, sizeof(struct sluice_client_key),
			  sizeof(struct sluice_client), 1024),
			M(frags, sizeof(struct sluice_frag_key), sizeof(struct sluice_frag),
			  SLUICE_MAX_FRAGS),
			M(frag_hold, sizeof(struct sluice_frag_hold_key),
			  sizeof(struct sluice_frag_held), SLUICE_MAX_HELD),
			M(idents, 4, sizeof(struct sluice_ident), SLUICE_IDS),
			M(hot, sizeof(struct sluice_full_key), sizeof(struct sluice_hot),
			  SLUICE_MAX_HOT),
			M(sweep_out, 4, sizeof(struct sluice_sweep), 1),
#undef M
		};
		size_t i;

		for (i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
			assert_string_equal(bpf_map__name(want[i].map), want[i].name);
			assert_int_equal(bpf_map__key_size(want[i].map), want[i].key);
			assert_int_equal(bpf_map__value_size(want[i].map), want[i].value);
			assert_int_equal(bpf_map__max_entries(want[i].map), want[i].rows);
		}
	}
	/* A flow table that evicts, or that has to ask for memory, would break the promise to live flows. */
	assert_int_equal(bpf_map__type(b.nat->maps.fwd), BPF_MAP_TYPE_HASH);
	assert_int_equal(bpf_map__type(b.nat->maps.rev), BPF_MAP_TYPE_HASH);
	assert_int_equal(bpf_map__map_flags(b.nat->maps.fwd) & BPF_F_NO_PREALLOC, 0);
	assert_int_equal(bpf_map__map_flags(b.nat->maps.rev) & BPF_F_NO_PREALLOC, 0);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verifier_budget),
		cmocka_unit_test(test_maps),
	};

	return cmocka_run_group_tests_name("load", tests, NULL, NULL);
}

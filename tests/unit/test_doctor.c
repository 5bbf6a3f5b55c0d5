/* SPDX-License-Identifier: BSD-2-Clause */
/* What is found about a machine, and how findings are told. */
#include "doctor.h"

#include <errno.h>
#include <jansson.h>

#include "host_test.h"

static struct doctor_facts machine(void)
{
	return (struct doctor_facts){
		.release = "6.18.44",
		.btf = true,
		.bpffs = "/sys/fs/bpf",
		.bpffs_is = true,
		.jit = 1,
		.unprivileged_bpf_disabled = 2,
		.net_admin = true,
		.bpf = true,
		.perfmon = true,
		.net_raw = true,
		.conntrack = -ENOENT,
	};
}

static size_t diagnosed(const struct doctor_facts *f, const char *id, enum severity s,
			const char *part)
{
	struct findings fs = { 0 };

	doctor_judge(f, &fs);

	size_t n = count(&fs, id, s, part);

	findings_done(&fs);
	return n;
}

static void test_kernel(void **state)
{
	static const struct {
		const char *release;
		enum severity s;
		enum severity tcx; /* FINDING_SEVERITIES: nothing said */
	} cases[] = {
		{ "6.18.44-fc-v782", FINDING_OK, FINDING_OK },
		{ "10.0", FINDING_OK, FINDING_OK },
		{ "6.6.1", FINDING_OK, FINDING_OK },
		{ "6.5.0-9-generic", FINDING_OK, FINDING_INFO },
		{ "6.1.0-28-cloud-amd64", FINDING_OK, FINDING_INFO },
		{ "5.17.3", FINDING_WARN, FINDING_INFO },
		{ "5.16.20", FINDING_ERROR, FINDING_SEVERITIES },
		{ "4.19.0", FINDING_ERROR, FINDING_SEVERITIES },
		{ "", FINDING_WARN, FINDING_SEVERITIES },
		{ "rolling", FINDING_WARN, FINDING_SEVERITIES },
	};
	struct doctor_facts f;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		f = machine();
		strcpy(f.release, cases[i].release);
		assert_int_equal(diagnosed(&f, "kernel.release", cases[i].s, cases[i].release), 1);
		for (int s = 0; s < FINDING_SEVERITIES; s++)
			assert_int_equal(diagnosed(&f, "kernel.tcx", s, ""),
					 s == (int)cases[i].tcx);
	}
}

static void test_machine(void **state)
{
	struct doctor_facts f = machine();
	struct findings fs = { 0 };

	(void)state;
	doctor_judge(&f, &fs);
	assert_int_equal(findings_worst(&fs), FINDING_OK);
	findings_done(&fs);

	f.btf = false;
	f.bpffs_is = false;
	f.jit = 0;
	f.unprivileged_bpf_disabled = 0;
	assert_int_equal(diagnosed(&f, "kernel.btf", FINDING_ERROR, "vmlinux"), 1);
	assert_int_equal(diagnosed(&f, "bpffs", FINDING_ERROR, "/sys/fs/bpf is not"), 1);
	assert_int_equal(diagnosed(&f, "kernel.jit", FINDING_WARN, "interpreted"), 1);
	assert_int_equal(diagnosed(&f, "kernel.unprivileged_bpf", FINDING_INFO, "every user"), 1);

	/* What can't be known here is not guessed. */
	f.jit = -ENOENT;
	f.unprivileged_bpf_disabled = -EACCES;
	for (int s = 0; s < FINDING_SEVERITIES; s++) {
		assert_int_equal(diagnosed(&f, "kernel.jit", s, ""), 0);
		assert_int_equal(diagnosed(&f, "kernel.unprivileged_bpf", s, ""), 0);
	}

	f = machine();
	f.net_raw = false;
	f.bpf = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "CAP_BPF CAP_NET_RAW"), 1);
	f.perfmon = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "CAP_BPF CAP_PERFMON"), 1);
	f.perfmon = true;
	f.euid = 1000;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_INFO, "CAP_BPF CAP_NET_RAW"), 1);
}

static void test_nat(void **state)
{
	struct doctor_facts f = machine();

	(void)state;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 1);
	assert_int_equal(diagnosed(&f, "nat.conntrack", FINDING_OK, ""), 1);
	f.conntrack = 0;
	assert_int_equal(diagnosed(&f, "nat.conntrack", FINDING_OK, ""), 1);
	f.conntrack = 5;
	assert_int_equal(diagnosed(&f, "nat.conntrack", FINDING_INFO, "5 entries"), 1);

	f.nat_chains = 2;
	strcpy(f.nat_names, "ip nat postrouting, inet x y");
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_WARN, "inet x y"), 1);
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 0);
	f.nat_chains = 0;
	f.nat_legacy = 1;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_WARN, "old iptables"), 1);
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 0);
	/* Half seen is not all well. */
	f.nat_legacy = 0;
	f.nat_chains = -EPERM;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_INFO, "can't be read"), 1);
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_OK, ""), 0);
	f.nat_legacy = 1;
	assert_int_equal(diagnosed(&f, "nat.rules", FINDING_WARN, "old iptables"), 1);
}

static char *printed(const struct findings *fs, bool json, int *ret_exit)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	assert_non_null(f);
	*ret_exit = doctor_print(f, fs, json);
	fclose(f);
	return text;
}

static void test_print(void **state)
{
	struct findings fs = { 0 };
	int code;
	char *text;

	(void)state;
	findings_add(&fs, "a", FINDING_OK, NULL, "fine");
	findings_add(&fs, "b", FINDING_WARN, "do \"this\"", "link %s", "w\033[31m\xff\n");
	text = printed(&fs, false, &code);
	assert_int_equal(code, 0);
	assert_non_null(strstr(text, "link w?[31m??\n"));
	assert_non_null(strstr(text, "-> do \"this\"\n"));
	assert_non_null(strstr(text, "\n1 ok, 0 to know, 1 warnings, 0 errors\n"));
	free(text);

	findings_add(&fs, "c", FINDING_ERROR, "act", "bad");
	text = printed(&fs, true, &code);
	assert_int_equal(code, 2);

	json_t *doc = json_loads(text, 0, NULL), *list = json_object_get(doc, "findings");

	assert_string_equal(json_string_value(json_object_get(doc, "worst")), "error");
	assert_int_equal(json_array_size(list), 3);
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 1), "advice")),
			    "do \"this\"");
	assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "severity")),
			    "ok");
	json_decref(doc);
	free(text);
	findings_done(&fs);

	/* Something was lost: that is not all well. */
	fs.err = -ENOMEM;
	text = printed(&fs, false, &code);
	assert_int_equal(code, 2);
	free(text);

	/* Nowhere to write to. */
	FILE *full = fopen("/dev/full", "w");

	fs = (struct findings){ 0 };
	assert_non_null(full);
	findings_add(&fs, "a", FINDING_OK, NULL, "fine");
	assert_int_equal(doctor_print(full, &fs, false), 2);
	fclose(full);
	findings_done(&fs);
}

/* On this very machine, as whoever runs the tests: something is found of everything, and nothing breaks. */
static void test_run_here(void **state)
{
	static const char *const always[] = { "kernel.release", "kernel.btf", "bpffs",
					      "capabilities",   "nat.rules",  "config" };
	struct findings fs = { 0 };
	struct host h;

	(void)state;
	doctor_run(NULL, &fs);
	for (size_t i = 0; i < N(always); i++) {
		size_t n = 0;

		for (int s = 0; s < FINDING_SEVERITIES; s++)
			n += count(&fs, always[i], s, "");
		assert_in_range(n, 1, 4);
	}
	findings_done(&fs);

	host_init(&h);
	h.c.uplinks[0] = (char *)"no-such-link";
	h.c.bpffs = (char *)"/proc/sluice/x/y";
	doctor_run(&h.c, &fs);
	assert_int_equal(count(&fs, "uplink", FINDING_ERROR, "\"no-such-link\" does not exist"), 1);
	assert_int_equal(count(&fs, "uplink", FINDING_ERROR, "links here: lo"), 2);
	assert_int_equal(count(&fs, "bpffs", FINDING_ERROR, "/proc is not"), 1);
	assert_int_equal(findings_worst(&fs), FINDING_ERROR);
	findings_done(&fs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel),   cmocka_unit_test(test_machine),
		cmocka_unit_test(test_nat),      cmocka_unit_test(test_print),
		cmocka_unit_test(test_run_here),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* What is found about a machine, and how findings are told. */
#include "doctor.h"

#include <cap-ng.h>
#include <errno.h>
#include <jansson.h>
#include <sys/wait.h>

#include "cmd_test.h"
#include "host_test.h"
#include "kernelhas.h"

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
		.chown = true,
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
}

/* What is missing, by who looks and what the configuration says. */
static void test_capabilities(void **state)
{
	struct doctor_facts f = machine();
	struct doctor_facts none = { .release = "6.18.44" };

	(void)state;
	f.net_raw = false;
	f.bpf = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "CAP_BPF CAP_NET_RAW"), 1);
	f.perfmon = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "CAP_BPF CAP_PERFMON"), 1);
	f.perfmon = true;
	f.euid = 1000;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_INFO, "CAP_BPF CAP_NET_RAW"), 1);

	f = machine();
	f.chown = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "lacks CAP_CHOWN"), 1);
	f.watch_only = true;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "lacks CAP_CHOWN"), 1);

	/* Nobody is answered by who only watches. */
	f = machine();
	f.net_raw = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "lacks CAP_NET_RAW"), 1);
	f.watch_only = true;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_OK, ""), 1);

	/* To enter a namespace, and for a module's types; the kernel's own anybody may read. */
	f = machine();
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_OK, ""), 1);
	f.watch_bpf = true;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_OK, ""), 1);
	f.conntrack_module = true;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_WARN, "CAP_SYS_ADMIN"), 1);
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_OK, ""), 0);
	f.watch_bpf = false;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_OK, ""), 1);
	f.enters = true;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_ERROR, "lacks CAP_SYS_ADMIN"), 1);
	f.watch_bpf = f.sys_admin = true;
	assert_int_equal(diagnosed(&f, "capabilities", FINDING_OK, ""), 1);

	none.enters = true;
	assert_int_equal(diagnosed(&none, "capabilities", FINDING_ERROR,
				   "lacks CAP_NET_ADMIN CAP_BPF CAP_PERFMON CAP_NET_RAW CAP_CHOWN "
				   "CAP_SYS_ADMIN"),
			 1);
}

/* What a configuration makes of what is needed. */
static void test_config(void **state)
{
	static const struct {
		const char *text;
		bool watch_only, enters, watch_bpf;
	} cases[] = {
		{ "", true, false, true },
		{ "watch { netns = { } }", true, false, false },
		{ "watch { netns = { \"\", \"blue\" } }", true, true, true },
		{ "watch { sources = { \"ctnetlink\" } }", true, false, false },
		{ "pool p { addresses = { \"203.0.113.7\" } clients = { \"10.0.0.0/8\" } }", false,
		  false, true },
	};
	struct doctor_facts f;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct errtext err = { 0 };
		struct config *c;
		char text[256];

		snprintf(text, sizeof(text), "uplinks = { \"wan\" }\n%s\n", cases[i].text);
		if (config_parse("test", text, strlen(text), &c, &err) < 0)
			fail_msg("%s", err.s);
		doctor_read(c, &f);
		assert_int_equal(f.watch_only, cases[i].watch_only);
		assert_int_equal(f.enters, cases[i].enters);
		assert_int_equal(f.watch_bpf, cases[i].watch_bpf);
		assert_int_equal(!*f.bpffs, cases[i].watch_only);
		config_free(c);
	}
	doctor_read(NULL, &f);
	assert_false(f.watch_only || f.enters || f.watch_bpf);
}

/* Capabilities that this process does not have are seen to be missing. */
static void test_capabilities_read(void **state)
{
	struct doctor_facts before, after;
	int status;
	pid_t pid;

	(void)state;
	doctor_read(NULL, &before);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		capng_clear(CAPNG_SELECT_CAPS);
		capng_apply(CAPNG_SELECT_CAPS);
		doctor_read(NULL, &after);
		_exit(after.chown || after.sys_admin || after.net_raw || after.bpf);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	capng_get_caps_process();
	assert_int_equal(before.chown, capng_have_capability(CAPNG_EFFECTIVE, CAP_CHOWN));
	assert_int_equal(before.sys_admin, capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN));
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

/* What a kernel lacks is told with what is done instead; what could not be seen is not guessed. */
static void test_features(void **state)
{
	static const struct {
		const char *id, *instead;
	} says[KERNEL_FEATURES] = {
		[KERNEL_NETFILTER] = { "kernel.netfilter", "ctnetlink alone" },
		[KERNEL_PORT_RANGE] = { "kernel.port_range", "bound to one port" },
		[KERNEL_BOUND] = { "kernel.bound", "tried by binding" },
		[KERNEL_PEERPIDFD] = { "kernel.peerpidfd", "opened by its number" },
	};
	struct findings fs = { 0 };
	struct kernel_has k;

	(void)state;
	for (int lacks = -1; lacks < KERNEL_FEATURES; lacks++) {
		for (int i = 0; i < KERNEL_FEATURES; i++)
			k.has[i] = i != lacks;
		kernel_has_judge(&k, &fs);
		assert_int_equal(fs.n, KERNEL_FEATURES);
		for (int i = 0; i < KERNEL_FEATURES; i++) {
			assert_int_equal(count(&fs, says[i].id, FINDING_OK, "later)"), i != lacks);
			assert_int_equal(count(&fs, says[i].id, FINDING_INFO, says[i].instead),
					 i == lacks);
		}
		findings_done(&fs);
	}
	k.has[KERNEL_NETFILTER] = -EPERM;
	k.has[KERNEL_BOUND] = -EMFILE;
	kernel_has_judge(&k, &fs);
	assert_int_equal(count(&fs, "kernel.netfilter", FINDING_INFO, "can't be found out"), 1);
	assert_int_equal(count(&fs, "kernel.bound", FINDING_INFO, "Too many open files"), 1);
	findings_done(&fs);

	/* This very kernel: whatever it has, each can be told, but for what takes privileges. */
	kernel_has_read(&k);
	for (int i = 0; i < KERNEL_FEATURES; i++)
		assert_true(k.has[i] == 0 || k.has[i] == 1 ||
			    (i == KERNEL_NETFILTER && k.has[i] == -EPERM));
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

/* The command: with the daemon down it says what to start, and that goes by the configuration. */
static void test_command(void **state)
{
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "watch { netns = { \"\" } }", "-> start it: systemctl start sluiced-watch\n" },
		{ "uplinks = { \"no-such-link\" }\n"
		  "pool p { addresses = { \"203.0.113.7\" } clients = { \"10.0.0.0/8\" } }",
		  "-> start it: systemctl start sluiced\n" },
	};
	char dir[] = "/tmp/sluice-test-XXXXXX", file[64], sock[64];
	struct cmd cmd = { .file = file, .socket = sock, .timeout_ms = 20000 };

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/sluice.conf", dir);
	snprintf(sock, sizeof(sock), "%s/control.sock", dir);
	for (size_t i = 0; i < N(cases); i++) {
		FILE *f = fopen(file, "w");

		assert_non_null(f);
		fprintf(f, "%s\n", cases[i].text);
		fclose(f);
		run(cmd_doctor, &cmd);
		expect_output("is valid\n");
		expect_output(cases[i].says);
	}
	free(output);
	unlink(file);
	rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernel),       cmocka_unit_test(test_machine),
		cmocka_unit_test(test_capabilities), cmocka_unit_test(test_capabilities_read),
		cmocka_unit_test(test_config),       cmocka_unit_test(test_nat),
		cmocka_unit_test(test_features),     cmocka_unit_test(test_print),
		cmocka_unit_test(test_run_here),     cmocka_unit_test(test_command),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Texts of the control groups' module. What it does with the kernel is in tests/bpf/test_cgroup.c. */
#include "cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#define N(a) (sizeof(a) / sizeof((a)[0]))

static void test_mounts(void **state)
{
	static const struct {
		const char *text, *path; /* NULL: not there */
	} cases[] = {
		{ "", NULL },
		{ "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n", "/sys/fs/cgroup" },
		{ "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
		  "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n"
		  "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
		  "none /mnt cgroup2 rw 0 0\n",
		  "/sys/fs/cgroup/unified" },
		{ "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n", NULL },
		/* Words of other columns. */
		{ "cgroup2 /cgroup2 tmpfs cgroup2 0 0\n", NULL },
		{ "none /a\\040b\\134c\\011 cgroup2 rw 0 0", "/a b\\c\t" },
		{ "none /a\\04 cgroup2 rw 0 0", "/a\\04" },
		{ "none /a\\999 cgroup2 rw 0 0", "/a\\999" },
		{ "cgroup2", NULL },
		{ "cgroup2 /x", NULL },
		{ "cgroup2 /x cgroup2", NULL },
		{ "\n\n \n  \ncgroup2 /x cgroup2 rw 0 0", "/x" },
		{ "cgroup2 /x cgroup2x rw 0 0", NULL },
	};
	char buf[PATH_MAX], text[2 * PATH_MAX];

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		int r = cgroup_parse_mounts(cases[i].text, buf);

		if (r != (cases[i].path ? 0 : -ENOENT))
			fail_msg("\"%s\": %d", cases[i].text, r);
		if (cases[i].path)
			assert_string_equal(buf, cases[i].path);
	}
	/* The longest path fits, and one that is longer is refused. */
	memset(text, 'a', sizeof(text));
	memcpy(text, "none /", 6);
	strcpy(text + 5 + PATH_MAX - 1, " cgroup2 rw 0 0\n");
	assert_int_equal(cgroup_parse_mounts(text, buf), 0);
	assert_int_equal(strlen(buf), PATH_MAX - 1);
	memset(text, 'a', sizeof(text));
	memcpy(text, "none /", 6);
	strcpy(text + 5 + PATH_MAX, " cgroup2 rw 0 0\n");
	assert_int_equal(cgroup_parse_mounts(text, buf), -ENAMETOOLONG);
}

static void test_names(void **state)
{
	static const struct {
		const char *name;
		uint64_t lease; /* 0: refused */
	} cases[] = {
		{ "exec-1", 1 },
		{ "exec-7", 7 },
		{ "exec-18446744073709551615", UINT64_MAX },
		{ "exec-18446744073709551616", 0 },
		{ "exec-99999999999999999999999", 0 },
		{ "exec-0", 0 },
		{ "exec-07", 0 },
		{ "exec-", 0 },
		{ "exec-1a", 0 },
		{ "exec--1", 0 },
		{ "exec-+1", 0 },
		{ "exec- 1", 0 },
		{ "exec", 0 },
		{ "", 0 },
		{ "xexec-1", 0 },
	};
	uint64_t lease;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		lease = 42;
		assert_int_equal(cgroup_parse_name(cases[i].name, &lease),
				 cases[i].lease ? 0 : -EINVAL);
		assert_int_equal(lease, cases[i].lease ? cases[i].lease : 42);
	}
}

static void test_base(void **state)
{
	static const struct {
		const char *name;
		uint32_t depth; /* 0: refused */
	} cases[] = {
		{ "sluice", 1 },  { "system.slice/sluice", 2 },
		{ "a/b/c", 3 },   { "..a/.b", 2 },
		{ "", 0 },        { "/sluice", 0 },
		{ "sluice/", 0 }, { "a//b", 0 },
		{ ".", 0 },       { "..", 0 },
		{ "a/../b", 0 },  { "a/.", 0 },
		{ "a\nb", 0 },
	};
	char name[400];
	uint32_t depth;

	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		depth = 42;
		assert_int_equal(cgroup_parse_base(cases[i].name, &depth),
				 cases[i].depth ? 0 : -EINVAL);
		assert_int_equal(depth, cases[i].depth ? cases[i].depth : 42);
	}
	memset(name, 'a', sizeof(name));
	name[255] = '\0';
	assert_int_equal(cgroup_parse_base(name, &depth), 0);
	name[255] = 'a';
	name[256] = '\0';
	assert_int_equal(cgroup_parse_base(name, &depth), -EINVAL);
	name[100] = '/';
	assert_int_equal(cgroup_parse_base(name, &depth), 0);
	name[256] = 'a';
	name[257] = '\0';
	assert_int_equal(cgroup_parse_base(name, &depth), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mounts),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_base),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kernel settings through /proc/sys. Keys are written as sysctl(8) writes them: components
 * separated by dots, and a dot that belongs to a name as a slash
 * ("net.ipv4.conf.eth0/100.rp_filter" is of interface eth0.100). Keys below "net." are those of the
 * calling thread's network namespace.
 */
#ifndef SYSCTL_H
#define SYSCTL_H

#include <stddef.h>

#define SYSCTL_KEY_LEN 80
#define SYSCTL_VAL_LEN 256

/* The key of a per-interface IPv4 or IPv6 setting; ifname may be "all" or "default". Returns buf. */
const char *sysctl_conf_key(const char *ifname, const char *name, char buf[SYSCTL_KEY_LEN]);
const char *sysctl_conf6_key(const char *ifname, const char *name, char buf[SYSCTL_KEY_LEN]);

/*
 * Read a value as text, without the newline, tabs turned into blanks. A longer value is cut.
 * Returns 0; -EINVAL for a key that is none; -ENOENT where the kernel or this namespace has no such
 * setting; else what reading gave.
 */
int sysctl_read(const char *key, char *buf, size_t size);
/* The same for a value that is one number from 0 up; -ERANGE when it is something else. */
int sysctl_read_int(const char *key, int *ret);
/* Returns 0 or -errno: -EACCES or -EPERM without the right to, -EROFS where /proc/sys may only be read. */
int sysctl_write(const char *key, const char *value);

#endif

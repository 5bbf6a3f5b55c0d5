/* SPDX-License-Identifier: BSD-2-Clause */
#include "sysctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSCTL_ROOT     "/proc/sys/"
#define SYSCTL_PATH_LEN (sizeof(SYSCTL_ROOT) + SYSCTL_KEY_LEN)

static const char *conf_key(const char *above, const char *ifname, const char *name,
			    char buf[SYSCTL_KEY_LEN])
{
	int at = snprintf(buf, SYSCTL_KEY_LEN, "%s", above);
	int end = at + snprintf(buf + at, SYSCTL_KEY_LEN - at, "%s", ifname);

	for (int i = at; i < end && i < SYSCTL_KEY_LEN; i++)
		if (buf[i] == '.')
			buf[i] = '/';
	if (end < SYSCTL_KEY_LEN)
		snprintf(buf + end, SYSCTL_KEY_LEN - end, ".%s", name);
	return buf;
}

const char *sysctl_conf_key(const char *ifname, const char *name, char buf[SYSCTL_KEY_LEN])
{
	return conf_key("net.ipv4.conf.", ifname, name, buf);
}

const char *sysctl_conf6_key(const char *ifname, const char *name, char buf[SYSCTL_KEY_LEN])
{
	return conf_key("net.ipv6.conf.", ifname, name, buf);
}

/* Keys come back out of a store: one that would lead out of /proc/sys is none. */
static int sysctl_path(const char *key, char path[SYSCTL_PATH_LEN])
{
	size_t len = strlen(key);
	size_t start = strlen(SYSCTL_ROOT);

	if (len == 0 || len >= SYSCTL_KEY_LEN)
		return -EINVAL;
	memcpy(path, SYSCTL_ROOT, start);
	for (size_t i = 0; i <= len; i++) {
		char c = key[i] == '.' ? '/' : key[i] == '/' ? '.' : key[i];
		char *p = path + strlen(SYSCTL_ROOT) + i;

		*p = c;
		if (c != '/' && c != '\0')
			continue;
		size_t n = p - (path + start);

		if (n == 0 || (n == 1 && p[-1] == '.') || (n == 2 && p[-1] == '.' && p[-2] == '.'))
			return -EINVAL;
		start = p + 1 - path;
	}
	return 0;
}

int sysctl_read(const char *key, char *buf, size_t size)
{
	char path[SYSCTL_PATH_LEN], text[SYSCTL_VAL_LEN];
	int r = sysctl_path(key, path);

	if (r < 0)
		return r;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, text, sizeof(text) - 1);

	r = n < 0 ? -errno : 0;
	close(fd);
	if (r < 0)
		return r;
	text[n] = '\0';
	text[strcspn(text, "\n")] = '\0';
	for (char *p = text; *p; p++)
		if (*p == '\t')
			*p = ' ';
	snprintf(buf, size, "%s", text);
	return 0;
}

int sysctl_read_int(const char *key, int *ret)
{
	char text[SYSCTL_VAL_LEN], *end;
	int r = sysctl_read(key, text, sizeof(text));

	if (r < 0)
		return r;
	errno = 0;
	long v = strtol(text, &end, 10);

	if (errno || end == text || *end || v < 0 || v > INT_MAX)
		return -ERANGE;
	*ret = (int)v;
	return 0;
}

int sysctl_write(const char *key, const char *value)
{
	char path[SYSCTL_PATH_LEN];
	int r = sysctl_path(key, path);

	if (r < 0)
		return r;
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	/* A setting is taken by one write or not at all. */
	size_t len = strlen(value);
	ssize_t n = write(fd, value, len);

	r = n < 0 ? -errno : (size_t)n == len ? 0 : -EIO;
	close(fd);
	return r;
}

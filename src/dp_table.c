// SPDX-License-Identifier: BSD-2-Clause
/* The hash and prefix maps that only the daemon writes: compare them with what is wanted, write what differs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "dp_internal.h"

static int key_order(const void *a, const void *b, void *size)
{
	return memcmp(a, b, *(size_t *)size);
}

void dp_entries_done(struct dp_entries *e)
{
	free(e->list);
	e->list = NULL;
}

/* All of a map, each key followed by its value. Sorted by key. */
int dp_entries_read(const struct bpf_map *map, struct dp_entries *ret, struct errtext *err)
{
	struct dp_entries e = {
		.fd = bpf_map__fd(map),
		.name = bpf_map__name(map),
		.key_size = bpf_map__key_size(map),
		.value_size = bpf_map__value_size(map),
	};
	const void *prev = NULL;

	e.stride = e.key_size + e.value_size;
	e.list = calloc(bpf_map__max_entries(map) + 1, e.stride);
	if (!e.list)
		return errtext_set(err, ENOMEM, "out of memory");
	while (e.n < bpf_map__max_entries(map)) {
		char *at = e.list + e.n * e.stride;

		if (bpf_map_get_next_key(e.fd, prev, at)) {
			if (errno == ENOENT)
				break;
			goto fail;
		}
		/* Only the daemon changes these maps, so an entry does not vanish between the two calls. */
		if (bpf_map_lookup_elem(e.fd, at, at + e.key_size))
			goto fail;
		prev = at;
		e.n++;
	}
	if (e.n)
		qsort_r(e.list, e.n, e.stride, key_order, &e.key_size);
	*ret = e;
	return 0;
fail:
	errtext_set(err, errno, "reading map \"%s\": %s", e.name, dp_why(-errno));
	dp_entries_done(&e);
	return -EIO;
}

/*
 * Enter what is wanted (keys and values stride apart, sorted) and not there, and replace what has
 * another value; or take out what is there and not wanted. *changed is set if there was anything to
 * do.
 */
int dp_entries_put(const struct dp_entries *e, const void *want, size_t n, size_t stride,
		   bool *changed, struct errtext *err)
{
	for (size_t i = 0, j = 0; i < n; i++) {
		const char *w = (const char *)want + i * stride;
		int order = 1;

		for (; j < e->n; j++) {
			order = memcmp(e->list + j * e->stride, w, e->key_size);
			if (order >= 0)
				break;
		}
		if (j < e->n && !order &&
		    !memcmp(e->list + j * e->stride + e->key_size, w + e->key_size, e->value_size))
			continue;
		if (bpf_map_update_elem(e->fd, w, w + e->key_size, BPF_ANY))
			return errtext_set(err, errno, "writing map \"%s\": %s", e->name,
					   dp_why(-errno));
		*changed = true;
	}
	return 0;
}

int dp_entries_remove(const struct dp_entries *e, const void *want, size_t n, size_t stride,
		      bool *changed, struct errtext *err)
{
	for (size_t j = 0, i = 0; j < e->n; j++) {
		const char *key = e->list + j * e->stride;
		int order = 1;

		for (; i < n; i++) {
			order = memcmp((const char *)want + i * stride, key, e->key_size);
			if (order >= 0)
				break;
		}
		if (i < n && !order)
			continue;
		if (bpf_map_delete_elem(e->fd, key) && errno != ENOENT)
			return errtext_set(err, errno, "writing map \"%s\": %s", e->name,
					   dp_why(-errno));
		*changed = true;
	}
	return 0;
}

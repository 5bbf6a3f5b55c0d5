/* SPDX-License-Identifier: BSD-2-Clause */
#include "methods_collide.h"

static json_t *by_source(const uint64_t n[2])
{
	return json_pack("{s:I, s:I}", "ctnetlink", (json_int_t)n[0], "netfilter",
			 (json_int_t)n[1]);
}

/* By number of the source's bit. */
static json_t *told(const struct collisions *c)
{
	json_t *j = json_object();

	for (size_t i = 0; j && i < sizeof(c->told) / sizeof(c->told[0]); i++)
		if (json_object_set_new(j, collision_source_name(1U << i),
					json_pack("{s:I, s:I}", "in_slice",
						  (json_int_t)c->told[i][1], "escaped",
						  (json_int_t)c->told[i][0])) < 0) {
			json_decref(j);
			return NULL;
		}
	return j;
}

static json_t *namespaces(const struct watcher *w)
{
	json_t *list = json_array();
	const char *name;

	for (size_t i = 0; list && (name = watch_netns(w, i)); i++) {
		json_t *text = json_string(name);

		/* A name that is no UTF-8 is told as best we can. */
		if (json_array_append_new(list, text ? text : json_string("?")) < 0) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

json_t *methods_watch_json(const struct watcher *w, const struct collisions *c)
{
	struct watch_stats st;

	if (!w)
		return json_null();
	st = watch_stats(w);
	return json_pack("{s:o, s:o, s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:I, s:I}", "namespaces",
			 namespaces(w), "observed", by_source(st.observed), "told", told(c),
			 "risks", (json_int_t)st.risks, "losses", by_source(st.losses), "resyncs",
			 (json_int_t)st.resyncs, "healed", (json_int_t)st.healed, "heal_failed",
			 (json_int_t)st.heal_failed, "no_socket", (json_int_t)st.no_socket,
			 "unstored", (json_int_t)c->unstored, "overflow", (json_int_t)c->overflow);
}

/* SPDX-License-Identifier: BSD-2-Clause */
/* Collisions as the interface has them: the method that lists them, the event that tells one, the watcher's part of GetStatus. */
#ifndef METHODS_COLLIDE_H
#define METHODS_COLLIDE_H

#include "collision.h"
#include "collisions.h"
#include "control.h"
#include "watch.h"

/* Of struct methods it needs only collisions (whose store may be NULL: no rows), so that it works without an engine. */
int methods_list_collisions(struct control_call *call, void *data);
#define METHODS_LIST_COLLISIONS                                                                \
	{                                                                                      \
		.name = "ListCollisions", .fn = methods_list_collisions,                       \
		.params = "kind proto netns in_slice source since limit", .flags = CONTROL_ANY \
	}

/* What follows are new references, NULL without memory. */

/* The type Collision. */
json_t *methods_collision_json(const struct collision *c);
/* The event "collision": the same fields, and "event". */
json_t *methods_collision_event(const struct collision *c);
/* The type Watch; null when nothing is watched (w is NULL). */
json_t *methods_watch_json(const struct watcher *w, const struct collisions *c);

#endif

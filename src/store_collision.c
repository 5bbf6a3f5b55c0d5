// SPDX-License-Identifier: BSD-2-Clause
/* The store of collisions: many at once in, the newest first out, the oldest forgotten. */
#include "store_collision.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "store_private.h"

static const char *proto_name(enum sluice_l4 l4)
{
	return l4 == SLUICE_UDP ? "udp" : "tcp";
}

/* ---- writing ---- */

static int collision_add(struct store *s, const struct collision *c)
{
	const struct collision_owner *o = &c->owner;

	return EXEC(s, STMT_COLLISION_ADD, V_INT(c->time_ms), V_TEXT(collision_kind_name(c->kind)),
		    V_TEXT(collision_source_name(c->source)), V_TEXT(c->netns),
		    V_TEXT(proto_name(c->l4)), V_ADDR(&c->src), V_INT(c->bound), V_INT(c->wire),
		    V_ADDR(&c->dst), V_INT(c->dport), V_INT(c->in_slice), V_INT(c->resolved),
		    V_INT(c->healed), c->delay_us == UINT32_MAX ? V_TEXT(NULL) : V_INT(c->delay_us),
		    V_INT(c->pid > 0 ? c->pid : 0), V_INT(c->uid), V_INT(c->inode),
		    V_INT(c->cookie), V_TEXT(c->comm), V_TEXT(c->cgroup), V_TEXT(o->kind),
		    V_ADDR(&o->src), V_INT(o->sport), V_ADDR(&o->dst), V_INT(o->dport));
}

int store_collisions_add(struct store *s, struct collision *list, size_t n, struct errtext *err)
{
	int rc = SQLITE_OK, r = store_usable(s, err);
	int64_t last = 0;

	if (r || !n)
		return r;
	r = store_tx_begin(s, err);
	if (r)
		return r;
	for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
		rc = collision_add(s, &list[i]);
	/* In one transaction they follow each other, and the table counts up by one. */
	last = sqlite3_last_insert_rowid(s->db);
	if (rc == SQLITE_OK)
		rc = EXEC(s, STMT_COLLISION_TRIM, V_INT(s->collision_max));
	if (rc != SQLITE_OK)
		r = store_fail(s, rc, "write the collisions", err);
	r = store_tx_end(s, r, err);
	if (r)
		return r;
	for (size_t i = 0; i < n; i++)
		list[i].id = (uint64_t)last - (n - 1 - i);
	return 0;
}

void store_collisions_keep(struct store *s, uint32_t max)
{
	s->collision_max = max;
}

/* ---- reading ---- */

/* A text that fits, and no other. */
static bool text_read(sqlite3_stmt *st, int col, char *ret, size_t size)
{
	const unsigned char *text = sqlite3_column_text(st, col);
	size_t n = (size_t)sqlite3_column_bytes(st, col);

	if (!text || n >= size || memchr(text, '\0', n))
		return false;
	memcpy(ret, text, n + 1);
	return true;
}

static bool addr_read(sqlite3_stmt *st, int col, struct addr *ret)
{
	const void *p = sqlite3_column_blob(st, col);

	if (!p || sqlite3_column_bytes(st, col) != sizeof(*ret))
		return false;
	memcpy(ret, p, sizeof(*ret));
	return true;
}

static bool number_read(sqlite3_stmt *st, int col, int64_t max, int64_t *ret)
{
	*ret = sqlite3_column_int64(st, col);
	return sqlite3_column_type(st, col) == SQLITE_INTEGER && *ret >= 0 && *ret <= max;
}

static bool port_read(sqlite3_stmt *st, int col, uint16_t *ret)
{
	int64_t v;

	if (!number_read(st, col, UINT16_MAX, &v))
		return false;
	*ret = (uint16_t)v;
	return true;
}

static bool flag_read(sqlite3_stmt *st, int col, bool *ret)
{
	int64_t v;

	if (!number_read(st, col, 1, &v))
		return false;
	*ret = v;
	return true;
}

static bool collision_words_read(sqlite3_stmt *st, int col, struct collision *c)
{
	char kind[16], source[16], proto[8];

	if (!text_read(st, col + 1, kind, sizeof(kind)) ||
	    !text_read(st, col + 2, source, sizeof(source)) ||
	    !text_read(st, col + 4, proto, sizeof(proto)))
		return false;
	c->kind = strcmp(kind, collision_kind_name(COLLISION_RISK)) ? COLLISION_REWRITE
								    : COLLISION_RISK;
	for (c->source = 1; c->source <= COLLISION_INVENTORY; c->source <<= 1)
		if (!strcmp(source, collision_source_name(c->source)))
			break;
	if (!*source)
		c->source = 0;
	c->l4 = strcmp(proto, proto_name(SLUICE_UDP)) ? SLUICE_TCP : SLUICE_UDP;
	return !strcmp(kind, collision_kind_name(c->kind)) &&
	       !strcmp(source, collision_source_name(c->source)) &&
	       !strcmp(proto, proto_name(c->l4));
}

/* COLLISION_FIELDS from column col on. */
static bool collision_read(sqlite3_stmt *st, int col, struct collision *ret)
{
	struct collision c = { .id = (uint64_t)sqlite3_column_int64(st, 0) };
	int64_t pid, uid, delay = UINT32_MAX;

	c.time_ms = sqlite3_column_int64(st, col);
	if (!collision_words_read(st, col, &c) ||
	    !text_read(st, col + 3, c.netns, sizeof(c.netns)) || !addr_read(st, col + 5, &c.src) ||
	    !port_read(st, col + 6, &c.bound) || !port_read(st, col + 7, &c.wire) ||
	    !addr_read(st, col + 8, &c.dst) || !port_read(st, col + 9, &c.dport) ||
	    !flag_read(st, col + 10, &c.in_slice) || !flag_read(st, col + 11, &c.resolved) ||
	    !flag_read(st, col + 12, &c.healed) ||
	    (sqlite3_column_type(st, col + 13) != SQLITE_NULL &&
	     !number_read(st, col + 13, UINT32_MAX - 1, &delay)) ||
	    !number_read(st, col + 14, INT32_MAX, &pid) ||
	    !number_read(st, col + 15, UINT32_MAX, &uid) ||
	    !text_read(st, col + 18, c.comm, sizeof(c.comm)) ||
	    !text_read(st, col + 19, c.cgroup, sizeof(c.cgroup)) ||
	    !text_read(st, col + 20, c.owner.kind, sizeof(c.owner.kind)) ||
	    !addr_read(st, col + 21, &c.owner.src) || !port_read(st, col + 22, &c.owner.sport) ||
	    !addr_read(st, col + 23, &c.owner.dst) || !port_read(st, col + 24, &c.owner.dport))
		return false;
	c.delay_us = (uint32_t)delay;
	c.pid = (int32_t)pid;
	c.uid = (uint32_t)uid;
	c.inode = (uint64_t)sqlite3_column_int64(st, col + 16);
	c.cookie = (uint64_t)sqlite3_column_int64(st, col + 17);
	*ret = c;
	return true;
}

static int list_bind(sqlite3_stmt *st, const struct store_collision_filter *f)
{
	const uint32_t rewrite = 1U << COLLISION_REWRITE, risk = 1U << COLLISION_RISK;
	const uint32_t tcp = 1U << SLUICE_TCP, udp = 1U << SLUICE_UDP;

	return BIND(st, V_INT(f->before_id ? f->before_id : INT64_MAX),
		    V_INT(f->since_ms ? f->since_ms : INT64_MIN),
		    V_TEXT(f->kinds == rewrite ? collision_kind_name(COLLISION_REWRITE)
			   : f->kinds == risk  ? collision_kind_name(COLLISION_RISK)
					       : NULL),
		    V_TEXT(f->protos == tcp   ? proto_name(SLUICE_TCP)
			   : f->protos == udp ? proto_name(SLUICE_UDP)
					      : NULL),
		    V_TEXT(f->netns), f->in_slice ? V_INT(f->in_slice > 0) : V_TEXT(NULL),
		    f->by_uid ? V_INT(f->uid) : V_TEXT(NULL));
}

int store_collisions_list(struct store *s, struct store_collision_filter *f,
			  int (*fn)(const struct collision *c, void *arg), void *arg,
			  struct errtext *err)
{
	sqlite3_stmt *st = s->stmt[STMT_COLLISIONS];
	int rc, reset, r = store_usable(s, err);
	size_t told = 0, looked = 0;
	struct collision c;
	uint64_t id = 0;

	if (r)
		return r;
	rc = list_bind(st, f);
	while (rc == SQLITE_OK || rc == SQLITE_ROW) {
		rc = sqlite3_step(st);
		if (rc != SQLITE_ROW)
			break;
		id = (uint64_t)sqlite3_column_int64(st, 0);
		if (sqlite3_column_int(st, 1)) {
			if (!collision_read(st, 2, &c)) {
				r = sqlite3_errcode(s->db) == SQLITE_NOMEM
					    ? errtext_set(err, ENOMEM, "out of memory")
					    : errtext_set(err, EUCLEAN,
							  "store %s: collision %" PRIu64
							  " is damaged",
							  s->path, id);
				break;
			}
			r = fn(&c, arg);
			if (r)
				break;
			told++;
		}
		if (++looked == f->look || (told && told == f->max))
			break;
	}
	reset = sqlite3_reset(st);
	sqlite3_clear_bindings(st);
	if (r)
		return r;
	if (rc == SQLITE_ROW) {
		f->before_id = id;
		return 1;
	}
	if (rc == SQLITE_DONE)
		rc = reset;
	return rc == SQLITE_OK ? 0 : store_fail(s, rc, "read the collisions", err);
}

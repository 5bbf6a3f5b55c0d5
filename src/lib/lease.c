/* SPDX-License-Identifier: BSD-2-Clause */
/* Leases: asked for, renewed, given back, and what they are. */
#include "internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NO_LIMIT INT64_MAX

int64_t lease_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_BOOTTIME, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void lease_ref(struct sluice_lease *l)
{
	l->refs++;
}

void lease_unref(struct sluice_lease *l)
{
	if (--l->refs == 0)
		free(l);
}

/* ---- what the daemon says of a lease ---- */

static bool read_proto(const char *text, unsigned *ret)
{
	static const struct {
		const char *name;
		unsigned proto;
	} protos[] = {
		{ "tcp", SLUICE_PROTO_TCP },
		{ "udp", SLUICE_PROTO_UDP },
		{ "tcp+udp", SLUICE_PROTO_TCP | SLUICE_PROTO_UDP },
	};

	for (size_t i = 0; text && i < sizeof(protos) / sizeof(protos[0]); i++) {
		if (strcmp(text, protos[i].name) == 0) {
			*ret = protos[i].proto;
			return true;
		}
	}
	return false;
}

static bool read_address(const char *text, struct sluice_lease *l)
{
	if (!text || strlen(text) >= sizeof(l->address))
		return false;
	strcpy(l->address, text);
	l->v6 = strchr(text, ':');
	return inet_pton(l->v6 ? AF_INET6 : AF_INET, text, &l->in6) == 1;
}

static bool read_port(json_t *v, uint16_t *ret)
{
	json_int_t n = json_integer_value(v);

	*ret = (uint16_t)n;
	return n >= 1 && n <= 65535;
}

/* asked_ms: before the question was sent, so that what is reckoned from it is never too long. */
static bool read_expiry(json_t *row, int64_t asked_ms, struct sluice_lease *l)
{
	json_t *v = json_object_get(row, "expires_s");
	json_int_t s = json_integer_value(v);

	if (s < 0 || s > INT32_MAX)
		return false;
	atomic_store(&l->expires_ms, json_is_integer(v) ? asked_ms + s * 1000 : NO_LIMIT);
	return true;
}

/* Fill l from an object of the type Lease. False if it is none. */
static bool read_lease(json_t *row, int64_t asked_ms, struct sluice_lease *l)
{
	const char *pool = json_string_value(json_object_get(row, "pool"));
	const char *kind = json_string_value(json_object_get(row, "kind"));
	json_int_t id = json_integer_value(json_object_get(row, "id"));

	if (id <= 0 || !pool || strlen(pool) > POOL_NAME_MAX || !kind ||
	    !read_proto(json_string_value(json_object_get(row, "proto")), &l->proto) ||
	    !read_address(json_string_value(json_object_get(row, "address")), l) ||
	    !read_port(json_object_get(row, "first"), &l->first) ||
	    !read_port(json_object_get(row, "last"), &l->last) || l->first > l->last ||
	    !read_expiry(row, asked_ms, l))
		return false;
	l->id = (uint64_t)id;
	strcpy(l->pool, pool);
	l->exclusive = strcmp(kind, "exclusive") == 0;
	return true;
}

/* The same from a Grant, what was asked for being known. */
static bool read_grant(json_t *row, const struct sluice_request *req, int64_t asked_ms,
		       struct sluice_lease *l)
{
	const char *pool = json_string_value(json_object_get(row, "pool"));
	json_int_t id = json_integer_value(json_object_get(row, "id"));

	if (id <= 0 || !pool || strlen(pool) > POOL_NAME_MAX ||
	    !read_address(json_string_value(json_object_get(row, "address")), l) ||
	    !read_port(json_object_get(row, "first"), &l->first) ||
	    !read_port(json_object_get(row, "last"), &l->last) || l->first > l->last)
		return false;
	l->id = (uint64_t)id;
	strcpy(l->pool, pool);
	l->proto = req->proto ?: SLUICE_PROTO_TCP;
	l->exclusive = req->exclusive;
	atomic_store(&l->expires_ms, req->ttl_s ? asked_ms + (int64_t)req->ttl_s * 1000 : NO_LIMIT);
	return true;
}

static int say_no_lease(const struct sluice *s, struct errtext *err)
{
	return errtext_set(err, EPROTO, "what sluiced at %s says of a lease makes no sense",
			   s->path);
}

/* ---- giving back: acquiring needs it too ---- */

/* Out of the list: nobody renews it any more. The reference is the caller's. */
static void leases_unlink(struct sluice *s, struct sluice_lease **l, unsigned n)
{
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < n; i++) {
		TAILQ_REMOVE(&s->leases, l[i], link);
		renew_stop(s, l[i]);
	}
	pthread_mutex_unlock(&s->lock);
}

static void leases_drop(struct sluice *s, struct sluice_lease **l, unsigned n)
{
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < n; i++)
		lease_unref(l[i]);
	pthread_mutex_unlock(&s->lock);
}

static int release_call(struct sluice *s, struct sluice_lease *const *l, unsigned n,
			struct errtext *err)
{
	struct call call = { .method = "Release", .flags = CALL_REPEAT, .send_fd = -1 };
	json_t *reply, *ids = json_array();
	int r;

	for (unsigned i = 0; i < n; i++) {
		if (json_array_append_new(ids, json_integer((json_int_t)l[i]->id)) < 0) {
			json_decref(ids);
			ids = NULL;
			break;
		}
	}
	call.params = ids ? json_pack("{s:o}", "ids", ids) : NULL;
	r = handle_call(s, &call, &reply, NULL, err);
	if (r == 0)
		json_decref(reply);
	/* Sent twice, and gone at the second time: it was the first time that did it. */
	if (r == -ESTALE && call.repeated && n == 1)
		r = 0;
	return r;
}

/* The daemon takes back all that are named, or none. One that has ended meanwhile must not keep the others. */
static int release_some(struct sluice *s, struct sluice_lease *const *l, unsigned n,
			struct errtext *err)
{
	struct errtext later = { 0 };
	int r = release_call(s, l, n, err);

	if (r != -ESTALE || n == 1)
		return r;
	r = 0;
	for (unsigned i = 0; i < n; i++) {
		int r1 = release_call(s, &l[i], 1, r < 0 ? &later : err);

		if (r == 0)
			r = r1;
		if (r1 < 0 && r1 != -ESTALE)
			break;
	}
	return r;
}

static int release(struct sluice *s, struct sluice_lease **l, unsigned n, struct errtext *err)
{
	struct errtext later = { 0 };
	int r = 0;

	leases_unlink(s, l, n);
	for (unsigned i = 0; i < n; i += LEASES_AT_ONCE) {
		unsigned some = n - i < LEASES_AT_ONCE ? n - i : LEASES_AT_ONCE;
		int r1 = release_some(s, l + i, some, r < 0 ? &later : err);

		if (r == 0)
			r = r1;
		if (r1 < 0 && r1 != -ESTALE)
			break;
	}
	leases_drop(s, l, n);
	return r;
}

/* ---- asking for leases ---- */

static int set(json_t *params, const char *key, json_t *v)
{
	return json_object_set_new(params, key, v);
}

/* Text that may be absent. -ENOMEM, also for text that is not UTF-8: the caller has seen to that. */
static int set_text(json_t *params, const char *key, const char *text)
{
	return text && *text ? set(params, key, json_string(text)) : 0;
}

static int set_number(json_t *params, const char *key, unsigned n)
{
	return n ? set(params, key, json_integer(n)) : 0;
}

/* "a b" as ["a", "b"]. */
static int set_words(json_t *params, const char *key, const char *text)
{
	json_t *words;

	if (!text || !*(text += strspn(text, " \t")))
		return 0;
	words = json_array();
	while (*text) {
		size_t n = strcspn(text, " \t");

		if (json_array_append_new(words, json_stringn(text, n)) < 0) {
			json_decref(words);
			return -1;
		}
		text += n;
		text += strspn(text, " \t");
	}
	return set(params, key, words);
}

static const char *proto_name(unsigned proto)
{
	if (proto == SLUICE_PROTO_UDP)
		return "udp";
	return proto & SLUICE_PROTO_UDP ? "tcp+udp" : "tcp";
}

static json_t *request_params(const struct sluice_request *req, unsigned n)
{
	static const char *const untils[] = {
		[SLUICE_UNTIL_EXIT] = "exit",
		[SLUICE_UNTIL_RELEASE] = "release",
		[SLUICE_UNTIL_PID] = "pid",
	};
	const char *parity = !req->parity ? NULL : req->parity == 'e' ? "even" : "odd";
	json_t *p = json_object();

	if (!p || set_text(p, "pool", req->pool) < 0 || set_words(p, "tags", req->tags) < 0 ||
	    set_text(p, "address", req->address) < 0 ||
	    set_text(p, "proto", proto_name(req->proto)) < 0 ||
	    (req->exclusive && set(p, "exclusive", json_true()) < 0) ||
	    set_number(p, "port", req->port) < 0 || set_number(p, "ports", req->ports) < 0 ||
	    set_number(p, "leases", n) < 0 || set(p, "brief", json_true()) < 0 ||
	    set_number(p, "align", req->align) < 0 || set_text(p, "parity", parity) < 0 ||
	    set_number(p, "ttl", req->ttl_s) < 0 ||
	    set_text(p, "until", untils[req->lifetime]) < 0 ||
	    (req->lifetime == SLUICE_UNTIL_PID && set_number(p, "pid", (unsigned)req->pid) < 0) ||
	    set_text(p, "name", req->name) < 0 || set_text(p, "labels", req->labels) < 0) {
		json_decref(p);
		return NULL;
	}
	return p;
}

/* jansson refuses text for not being UTF-8, and for want of memory: the latter is not for us to say. */
static bool is_utf8(const char *text)
{
	json_t *s = text ? json_string(text) : json_null();
	json_t *memory = s ? NULL : json_string("");
	bool ok = s || !memory;

	json_decref(s);
	json_decref(memory);
	return ok;
}

/* What the daemon could not tell from something else, or would not be told at all. The rest it judges itself. */
static int check_request(const struct sluice_request *req, unsigned n, struct errtext *err)
{
	if (n < 1 || n > LEASES_AT_ONCE)
		return errtext_set(err, EINVAL, "%u leases at once: 1 to %d are possible", n,
				   LEASES_AT_ONCE);
	if (req->proto & ~(SLUICE_PROTO_TCP | SLUICE_PROTO_UDP))
		return errtext_set(err, EINVAL, "proto 0x%x is neither TCP nor UDP", req->proto);
	if (req->parity && req->parity != 'e' && req->parity != 'o')
		return errtext_set(err, EINVAL, "parity must be 'e', 'o' or 0");
	if ((unsigned)req->lifetime > SLUICE_UNTIL_PID)
		return errtext_set(err, EINVAL, "there is no lifetime %d", (int)req->lifetime);
	if (req->lifetime == SLUICE_UNTIL_PID && req->pid <= 0)
		return errtext_set(err, EINVAL, "pid %d is no process", req->pid);
	if (req->renew && !req->ttl_s)
		return errtext_set(err, EINVAL, "renewing needs a time limit: ttl_s is 0");
	if (!is_utf8(req->pool) || !is_utf8(req->tags) || !is_utf8(req->address) ||
	    !is_utf8(req->name) || !is_utf8(req->labels))
		return errtext_set(err, EINVAL, "a text of the request is not UTF-8");
	return 0;
}

/* n empty leases; nothing can lack once the daemon has given them. */
static int leases_new(struct sluice_lease **ret, unsigned n, struct errtext *err)
{
	for (unsigned i = 0; i < n; i++) {
		ret[i] = calloc(1, sizeof(**ret));
		if (!ret[i]) {
			while (i > 0)
				free(ret[--i]);
			return errtext_set(err, ENOMEM, "out of memory");
		}
		ret[i]->refs = 1;
	}
	return 0;
}

/* Put leases into the handle's list. */
static int leases_keep(struct sluice *s, struct sluice_lease **l, unsigned n, struct errtext *err)
{
	int r = 0;

	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < n; i++) {
		TAILQ_INSERT_TAIL(&s->leases, l[i], link);
		if (l[i]->renew && r == 0)
			r = renew_start(s, l[i], err);
	}
	pthread_mutex_unlock(&s->lock);
	return r;
}

static int acquire(struct sluice *s, const struct sluice_request *req, unsigned n,
		   struct sluice_lease **ret, struct errtext *err)
{
	struct call call = { .method = "Acquire", .send_fd = -1 };
	int64_t asked_ms = lease_now_ms();
	json_t *reply, *rows, *grants;
	bool sane;
	int r;

	r = check_request(req, n, err);
	if (r == 0)
		r = leases_new(ret, n, err);
	if (r < 0)
		return r;
	call.params = request_params(req, n);
	r = handle_call(s, &call, &reply, NULL, err);
	if (r == 0) {
		/* A daemon may say more than it was asked for. */
		grants = json_object_get(reply, "grants");
		rows = grants ?: json_object_get(reply, "leases");
		sane = json_array_size(rows) == n;
		for (unsigned i = 0; sane && i < n; i++) {
			json_t *row = json_array_get(rows, i);

			sane = grants ? read_grant(row, req, asked_ms, ret[i])
				      : read_lease(row, asked_ms, ret[i]);
			ret[i]->ttl_s = req->ttl_s;
			ret[i]->renew = req->renew;
		}
		json_decref(reply);
		if (!sane)
			r = say_no_lease(s, err);
	}
	if (r < 0) {
		for (unsigned i = 0; i < n; i++)
			free(ret[i]);
		return r;
	}
	r = leases_keep(s, ret, n, err);
	if (r < 0) {
		/* No thread to renew them: what was asked for cannot be had. Nothing more can be done if this fails. */
		struct errtext ignored;

		for (unsigned i = 0; i < n; i++)
			ret[i]->renew = false;
		release(s, ret, n, &ignored);
	}
	return r;
}

API int sluice_acquire_many(struct sluice *s, const struct sluice_request *req, unsigned n,
			    struct sluice_lease **ret)
{
	struct sluice_lease *got[LEASES_AT_ONCE];
	struct errtext err = { 0 };
	int r = acquire(s, req, n, got, &err);

	if (r == 0)
		memcpy(ret, got, n * sizeof(got[0]));
	return handle_end(s, r, &err);
}

API int sluice_acquire(struct sluice *s, const struct sluice_request *req,
		       struct sluice_lease **ret)
{
	return sluice_acquire_many(s, req, 1, ret);
}

static int find(struct sluice *s, uint64_t id, struct sluice_lease **ret, struct errtext *err)
{
	struct call call = { .method = "ListLeases", .flags = CALL_REPEAT, .send_fd = -1 };
	int64_t asked_ms = lease_now_ms();
	const char *state;
	json_t *reply, *row;
	int r;

	if (id == 0 || id > INT64_MAX)
		return errtext_set(err, ESTALE, "lease %llu never was", (unsigned long long)id);
	r = leases_new(ret, 1, err);
	if (r < 0)
		return r;
	call.params = json_pack("{s:I}", "id", (json_int_t)id);
	r = handle_call(s, &call, &reply, NULL, err);
	if (r == 0) {
		row = json_array_get(json_object_get(reply, "leases"), 0);
		state = json_string_value(json_object_get(row, "state"));
		if (!json_is_array(json_object_get(reply, "leases")) ||
		    (row && (!state || !read_lease(row, asked_ms, *ret) || (*ret)->id != id)))
			r = say_no_lease(s, err);
		else if (!row || strcmp(state, "active") != 0)
			r = errtext_set(err, ESTALE, "lease %llu has ended, or never was",
					(unsigned long long)id);
		json_decref(reply);
	}
	if (r == 0)
		r = leases_keep(s, ret, 1, err);
	else
		free(*ret);
	return r;
}

API int sluice_find(struct sluice *s, uint64_t id, struct sluice_lease **ret)
{
	struct sluice_lease *got = NULL;
	struct errtext err = { 0 };
	int r = find(s, id, &got, &err);

	if (r == 0)
		*ret = got;
	return handle_end(s, r, &err);
}

/* ---- renewing ---- */

int lease_renew_call(struct sluice *s, struct sluice_lease *l, unsigned ttl_s, unsigned flags,
		     struct errtext *err)
{
	struct call call = { .method = "Renew", .flags = flags | CALL_REPEAT, .send_fd = -1 };
	int64_t asked_ms = lease_now_ms();
	json_t *reply, *row, *id;
	int r;

	call.params = json_pack("{s:I}", "id", (json_int_t)l->id);
	if (call.params && set_number(call.params, "ttl", ttl_s) < 0) {
		json_decref(call.params);
		call.params = NULL;
	}
	r = handle_call(s, &call, &reply, NULL, err);
	if (r == 0) {
		row = json_object_get(reply, "lease");
		id = json_object_get(row, "id");
		if ((uint64_t)json_integer_value(id) != l->id || !read_expiry(row, asked_ms, l))
			r = say_no_lease(s, err);
		json_decref(reply);
	}
	/* That the handle is being closed says nothing of the lease. */
	if (r != -ECANCELED)
		atomic_store(&l->status, r);
	return r;
}

API int sluice_renew(struct sluice *s, struct sluice_lease *l, unsigned ttl_s)
{
	struct errtext err = { 0 };
	int r = lease_renew_call(s, l, ttl_s, 0, &err);

	pthread_mutex_lock(&s->lock);
	if (r == 0 && ttl_s)
		l->ttl_s = ttl_s;
	if (r == 0 && l->renew)
		renew_again(s, l);
	pthread_mutex_unlock(&s->lock);
	return handle_end(s, r, &err);
}

API int sluice_keep(struct sluice *s, struct sluice_lease *l, unsigned ttl_s)
{
	struct errtext err = { 0 };
	int r;

	if (!ttl_s)
		r = errtext_set(&err, EINVAL, "renewing needs a time limit: ttl_s is 0");
	else
		r = lease_renew_call(s, l, ttl_s, 0, &err);
	pthread_mutex_lock(&s->lock);
	if (r == 0) {
		l->ttl_s = ttl_s;
		l->renew = true;
		r = renew_start(s, l, &err);
		l->renew = r == 0;
	}
	pthread_mutex_unlock(&s->lock);
	return handle_end(s, r, &err);
}

/* ---- giving back ---- */

API int sluice_release_many(struct sluice *s, struct sluice_lease **l, unsigned n)
{
	struct errtext err = { 0 };

	return handle_end(s, release(s, l, n, &err), &err);
}

API int sluice_release(struct sluice *s, struct sluice_lease *l)
{
	return sluice_release_many(s, &l, 1);
}

API void sluice_forget(struct sluice *s, struct sluice_lease *l)
{
	leases_unlink(s, &l, 1);
	leases_drop(s, &l, 1);
}

/* ---- what they are ---- */

API uint64_t sluice_lease_id(const struct sluice_lease *l)
{
	return l->id;
}

API const char *sluice_lease_pool(const struct sluice_lease *l)
{
	return l->pool;
}

API const char *sluice_lease_address(const struct sluice_lease *l)
{
	return l->address;
}

API uint16_t sluice_lease_first(const struct sluice_lease *l)
{
	return l->first;
}

API uint16_t sluice_lease_last(const struct sluice_lease *l)
{
	return l->last;
}

API unsigned sluice_lease_proto(const struct sluice_lease *l)
{
	return l->proto;
}

API bool sluice_lease_exclusive(const struct sluice_lease *l)
{
	return l->exclusive;
}

API long sluice_lease_expires_s(const struct sluice_lease *l)
{
	int64_t at_ms = atomic_load(&l->expires_ms), left_ms;

	if (at_ms == NO_LIMIT)
		return -1;
	left_ms = at_ms - lease_now_ms();
	return left_ms > 0 ? (long)(left_ms / 1000) : 0;
}

API int sluice_lease_status(const struct sluice_lease *l)
{
	return atomic_load(&l->status);
}

API socklen_t sluice_lease_sockaddr(const struct sluice_lease *l, uint16_t port,
				    struct sockaddr_storage *ret)
{
	struct sockaddr_in *in = (struct sockaddr_in *)ret;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;

	memset(ret, 0, sizeof(*ret));
	if (l->v6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		in6->sin6_addr = l->in6;
		return sizeof(*in6);
	}
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	memcpy(&in->sin_addr, &l->in6, sizeof(in->sin_addr));
	return sizeof(*in);
}

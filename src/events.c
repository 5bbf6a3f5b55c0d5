/* SPDX-License-Identifier: BSD-2-Clause */
#include "events.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "addr.h"
#include "clock.h"
#include "icmp.h"
#include "log.h"

#define EVENTS_A_TURN 256
#define LOG_PER_S     5
#define LOG_BURST     20

struct turn {
	struct events *ev;
	struct engine *engine;
	uint64_t now_ns;
};

int events_init(struct events *ev, uint32_t icmp_rate, uint64_t now_ns)
{
	memset(ev, 0, sizeof(*ev));
	rate_init(&ev->icmp_rate, icmp_rate, icmp_rate, now_ns);
	rate_init(&ev->log_rate, LOG_PER_S, LOG_BURST, now_ns);
	ev->icmp_fd = icmp_open();
	ev->icmp6_fd = icmp6_open();
	if (ev->icmp_fd < 0)
		return ev->icmp_fd;
	/* A machine without IPv6 has no client that would miss it. */
	return ev->icmp6_fd < 0 && ev->icmp6_fd != -EAFNOSUPPORT ? ev->icmp6_fd : 0;
}

void events_done(struct events *ev)
{
	if (ev->icmp_fd >= 0)
		close(ev->icmp_fd);
	if (ev->icmp6_fd >= 0)
		close(ev->icmp6_fd);
	ev->icmp_fd = -1;
	ev->icmp6_fd = -1;
}

/* Was it a client's packet that opened, or would have opened, a flow? */
static bool refused_client(const struct sluice_event *e)
{
	if (e->kind != SLUICE_EVENT_DROP || !e->ifindex)
		return false;
	switch (e->reason) {
	case SLUICE_DROP_no_port:
	case SLUICE_DROP_no_slice:
	case SLUICE_DROP_table_full:
	case SLUICE_DROP_fenced:
	case SLUICE_DROP_client_ports:
	case SLUICE_DROP_client_states:
	case SLUICE_DROP_client_rate:
		return true;
	}
	return false;
}

static void answer(struct events *ev, const struct sluice_event *e, uint64_t now_ns)
{
	uint8_t msg[ICMP_MSG_MAX], dst6[16];
	uint32_t dst_be;
	size_t len;

	if (ev->icmp_fd >= 0 && !icmp_unreachable_build(e->snap, e->snap_len, msg, &len, &dst_be)) {
		if (rate_take(&ev->icmp_rate, now_ns))
			icmp_send(ev->icmp_fd, msg, len, dst_be);
	} else if (ev->icmp6_fd >= 0 &&
		   !icmp6_unreachable_build(e->snap, e->snap_len, msg, &len, dst6)) {
		if (rate_take(&ev->icmp_rate, now_ns))
			icmp6_send(ev->icmp6_fd, msg, len, dst6);
	}
}

static const char *event_name(const struct sluice_event *e)
{
	switch (e->kind) {
	case SLUICE_EVENT_RESOLVED:
		return "resolved";
	case SLUICE_EVENT_UNLEASED:
		return "unleased";
	}
	return "drop";
}

static json_t *event_time(uint64_t boot_ns)
{
	int64_t ago_ns = (int64_t)(clock_boot_ns() - boot_ns);

	return control_time(clock_utc_ms() - (ago_ns > 0 ? ago_ns / (int64_t)NS_PER_MS : 0));
}

/* What the process that sent it is called. A program chooses its name: only printable ASCII of it is kept. */
static const char *owner_name(const struct sluice_event *e, char buf[sizeof(e->owner.comm) + 1])
{
	memcpy(buf, e->owner.comm, sizeof(e->owner.comm));
	buf[sizeof(e->owner.comm)] = '\0';
	for (char *p = buf; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return buf;
}

/* " of COMM (pid N, uid N)", for the log; "" when nothing is known. */
static const char *owner_text(const struct sluice_event *e, char *buf, size_t size)
{
	char comm[sizeof(e->owner.comm) + 1];

	buf[0] = '\0';
	if (e->owner.pid)
		snprintf(buf, size, " of %s (pid %u, uid %u)", owner_name(e, comm), e->owner.pid,
			 e->owner.uid);
	else if (e->cookie)
		snprintf(buf, size, " of uid %u", e->owner.uid);
	return buf;
}

static bool event_has_owner(const struct sluice_event *e)
{
	return e->owner_src.d[0] || e->owner_src.d[1];
}

/* The inner address of the flow that has the tuple. */
static const char *event_flow_owner(const struct sluice_event *e, char buf[ADDR_STRLEN])
{
	struct addr a;

	memcpy(a.b, e->owner_src.b, sizeof(a.b));
	return addr_format(&a, buf);
}

static json_t *event_json(struct engine *engine, const struct sluice_event *e)
{
	char comm[sizeof(e->owner.comm) + 1];
	char src[ADDR_STRLEN], dst[ADDR_STRLEN], inner[ADDR_STRLEN];
	struct addr a, b;
	json_t *j;

	memcpy(a.b, e->key.src.b, sizeof(a.b));
	memcpy(b.b, e->key.dst.b, sizeof(b.b));
	j = json_pack("{s:o, s:s, s:s, s:s, s:{s:s, s:i, s:s, s:i}}", "time",
		      event_time(e->time_ns), "event", event_name(e), "pool",
		      dp_pool(engine->dp, e->pool % SLUICE_MAX_POOLS)->name, "proto",
		      dp_proto_name(e->key.proto), "inner", "src", addr_format(&a, src), "sport",
		      ntohs(e->key.sport), "dst", addr_format(&b, dst), "dport",
		      ntohs(e->key.dport));
	if (j && e->kind == SLUICE_EVENT_DROP)
		json_object_set_new(j, "reason", json_string(dp_reason_name(e->reason)));
	if (j && (e->cookie || e->owner.pid))
		json_object_set_new(j, "holder",
				    json_pack("{s:I, s:I, s:s, s:s}", "pid",
					      (json_int_t)e->owner.pid, "uid",
					      (json_int_t)e->owner.uid, "comm", owner_name(e, comm),
					      "cgroup", ""));
	if (j && e->kind == SLUICE_EVENT_RESOLVED) {
		json_object_set_new(
			j, "outer",
			json_pack("{s:s, s:i}", "src", src, "sport", ntohs(e->outer_port)));
		/* Whose flow has the tuple. */
		if (event_has_owner(e))
			json_object_set_new(j, "owner",
					    json_pack("{s:s, s:s, s:i, s:s, s:i}", "kind", "flow",
						      "src", event_flow_owner(e, inner), "sport",
						      ntohs(e->owner_sport), "dst", dst, "dport",
						      ntohs(e->key.dport)));
	}
	return j;
}

static void write_log(struct events *ev, struct engine *engine, const struct sluice_event *e,
		      uint64_t now_ns)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN], inner[ADDR_STRLEN], more[64] = "", who[96];
	char rival[ADDR_STRLEN + 16] = "";
	struct addr a, b;

	if (!rate_take(&ev->log_rate, now_ns)) {
		ev->log_left_out++;
		return;
	}
	if (ev->log_left_out)
		snprintf(more, sizeof(more), " (and %" PRIu64 " events that were not logged)",
			 ev->log_left_out);
	ev->log_left_out = 0;
	memcpy(a.b, e->key.src.b, sizeof(a.b));
	memcpy(b.b, e->key.dst.b, sizeof(b.b));
	addr_format(&a, src);
	addr_format(&b, dst);
	switch (e->kind) {
	case SLUICE_EVENT_RESOLVED:
		if (event_has_owner(e))
			snprintf(rival, sizeof(rival), " of %s:%u", event_flow_owner(e, inner),
				 ntohs(e->owner_sport));
		log_notice("pool %s: socket %s:%u to %s:%u%s collided with a NAT flow%s and goes "
			   "out as port %u%s",
			   dp_pool(engine->dp, e->pool % SLUICE_MAX_POOLS)->name, src,
			   ntohs(e->key.sport), dst, ntohs(e->key.dport),
			   owner_text(e, who, sizeof(who)), rival, ntohs(e->outer_port), more);
		break;
	case SLUICE_EVENT_UNLEASED:
		log_info("pool %s: %s socket %s:%u to %s:%u%s uses a port that is not leased to "
			 "it%s",
			 dp_pool(engine->dp, e->pool % SLUICE_MAX_POOLS)->name,
			 dp_proto_name(e->key.proto), src, ntohs(e->key.sport), dst,
			 ntohs(e->key.dport), owner_text(e, who, sizeof(who)), more);
		break;
	default:
		log_warn("dropped (%s): %s %s:%u to %s:%u%s: %s%s", dp_reason_name(e->reason),
			 dp_proto_name(e->key.proto), src, ntohs(e->key.sport), dst,
			 ntohs(e->key.dport), owner_text(e, who, sizeof(who)),
			 dp_reason_help(e->reason), more);
	}
}

/* The collision that did not happen: kept and listed with those that conntrack makes. */
static void note_resolved(struct events *ev, const struct sluice_event *e)
{
	char comm[sizeof(e->owner.comm) + 1];
	struct collision c = {
		.time_ms = clock_utc_ms(),
		.kind = COLLISION_REWRITE,
		.source = COLLISION_DATAPLANE,
		.l4 = e->key.proto == IPPROTO_TCP ? SLUICE_TCP : SLUICE_UDP,
		.bound = ntohs(e->key.sport),
		.wire = ntohs(e->outer_port),
		.dport = ntohs(e->key.dport),
		.in_slice = true,
		.resolved = true,
		.delay_us = (uint32_t)((clock_boot_ns() - e->time_ns) / 1000),
		.pid = (int32_t)e->owner.pid,
		.uid = e->owner.uid,
		.cookie = e->cookie,
	};

	/* Pings have no ports to bind. */
	if (e->key.proto != IPPROTO_TCP && e->key.proto != IPPROTO_UDP)
		return;
	memcpy(c.src.b, e->key.src.b, sizeof(c.src.b));
	memcpy(c.dst.b, e->key.dst.b, sizeof(c.dst.b));
	snprintf(c.comm, sizeof(c.comm), "%.15s", owner_name(e, comm));
	if (event_has_owner(e)) {
		snprintf(c.owner.kind, sizeof(c.owner.kind), "flow");
		memcpy(c.owner.src.b, e->owner_src.b, sizeof(c.owner.src.b));
		c.owner.sport = ntohs(e->owner_sport);
		c.owner.dst = c.dst;
		c.owner.dport = c.dport;
	}
	collisions_add(ev->collisions, &c);
}

static void on_event(const struct sluice_event *e, void *arg)
{
	struct turn *t = arg;

	if (e->kind >= SLUICE_EVENT_MAX || e->reason >= SLUICE_REASON_MAX)
		return;
	if (refused_client(e))
		answer(t->ev, e, t->now_ns);
	if (e->kind == SLUICE_EVENT_RESOLVED && t->ev->collisions)
		note_resolved(t->ev, e);
	if (control_monitored(t->ev->control))
		control_publish(t->ev->control, event_json(t->engine, e));
	write_log(t->ev, t->engine, e, t->now_ns);
}

int events_poll(struct events *ev, struct engine *e)
{
	struct turn t = { .ev = ev, .engine = e, .now_ns = clock_boot_ns() };
	int n = dp_events_poll(e->dp, on_event, &t, EVENTS_A_TURN);

	return n < 0 ? n : 0;
}

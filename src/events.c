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
	return ev->icmp_fd < 0 ? ev->icmp_fd : 0;
}

void events_done(struct events *ev)
{
	if (ev->icmp_fd >= 0)
		close(ev->icmp_fd);
	ev->icmp_fd = -1;
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
		return true;
	}
	return false;
}

static void answer(struct events *ev, const struct sluice_event *e, uint64_t now_ns)
{
	uint8_t msg[ICMP_MSG_MAX];
	uint32_t dst_be;
	size_t len;

	if (ev->icmp_fd < 0 || icmp_unreachable_build(e->snap, e->snap_len, msg, &len, &dst_be) < 0)
		return;
	if (rate_take(&ev->icmp_rate, now_ns))
		icmp_send(ev->icmp_fd, msg, len, dst_be);
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

static json_t *event_json(struct engine *engine, const struct sluice_event *e)
{
	char comm[sizeof(e->owner.comm) + 1];
	char src[ADDR_STRLEN], dst[ADDR_STRLEN];
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
	if (j && e->kind == SLUICE_EVENT_RESOLVED)
		json_object_set_new(
			j, "outer",
			json_pack("{s:s, s:i}", "src", src, "sport", ntohs(e->outer_port)));
	return j;
}

static void write_log(struct events *ev, struct engine *engine, const struct sluice_event *e,
		      uint64_t now_ns)
{
	char src[ADDR_STRLEN], dst[ADDR_STRLEN], more[64] = "", who[96];
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
		log_notice("pool %s: socket %s:%u to %s:%u%s collided with a NAT flow and goes out "
			   "as port %u%s",
			   dp_pool(engine->dp, e->pool % SLUICE_MAX_POOLS)->name, src,
			   ntohs(e->key.sport), dst, ntohs(e->key.dport),
			   owner_text(e, who, sizeof(who)), ntohs(e->outer_port), more);
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

static void on_event(const struct sluice_event *e, void *arg)
{
	struct turn *t = arg;

	if (e->kind >= SLUICE_EVENT_MAX || e->reason >= SLUICE_REASON_MAX)
		return;
	if (refused_client(e))
		answer(t->ev, e, t->now_ns);
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

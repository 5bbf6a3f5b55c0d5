/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What ctnetlink says, well-formed and not: messages made by hand go into the parser, and through a pair of sockets that stands in for netlink into the readers of
 * events and dumps. tests/bpf/test_ctnl.c does the same with the kernel.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <netinet/in.h>

#include "ctnl_msg.h"
#include "ctnl_private.h"

/* A socket that gave way to a client: bound to 41000, on the wire 53211. */
static struct msg_spec v4(void)
{
	return (struct msg_spec){
		.type = IPCTNL_MSG_CT_NEW,
		.family = AF_INET,
		.proto = IPPROTO_TCP,
		.src = "203.0.113.7",
		.dst = "192.0.2.2",
		.reply_src = "192.0.2.2",
		.reply_dst = "203.0.113.7",
		.sport = 41000,
		.dport = 80,
		.reply_sport = 80,
		.reply_dport = 53211,
		.status = IPS_SRC_NAT | IPS_CONFIRMED | IPS_SRC_NAT_DONE,
		.id = 0x80000001,
	};
}

static struct msg_spec v6(void)
{
	struct msg_spec s = v4();

	s.family = AF_INET6;
	s.proto = IPPROTO_UDP;
	s.src = s.reply_dst = "2001:db8::7";
	s.dst = s.reply_src = "2001:db8:2::2";
	return s;
}

/* The parser sees exactly the message's bytes, so that one more is noticed; on failure it must leave everything as it was. */
static int parse(const struct nlmsghdr *h, enum ct_verb *verb, struct ct_entry *e)
{
	struct nlmsghdr *copy = malloc(h->nlmsg_len);
	struct ct_entry before = *e;
	int r;

	assert_non_null(copy);
	memcpy(copy, h, h->nlmsg_len);
	r = ctnl_parse(copy, verb, e);
	free(copy);
	if (r)
		assert_memory_equal(e, &before, sizeof(before));
	return r;
}

static int parse_spec(const struct msg_spec *s, enum ct_verb *verb, struct ct_entry *e)
{
	struct msg m = msg_make(s);

	return parse(&m.h, verb, e);
}

static struct ct_entry must_parse(const struct msg_spec *s)
{
	struct ct_entry e = { 0 };
	enum ct_verb verb = CT_FOUND;

	assert_int_equal(parse_spec(s, &verb, &e), 0);
	assert_int_equal(verb, s->type == IPCTNL_MSG_CT_DELETE ? CT_GONE : CT_NEW);
	return e;
}

static void must_refuse(const struct msg_spec *s, int r)
{
	struct ct_entry e = { .id = 4711 };
	enum ct_verb verb = CT_FOUND;

	assert_int_equal(parse_spec(s, &verb, &e), r);
	assert_int_equal(verb, CT_FOUND);
}

static bool addr_is(const struct addr *a, const char *text)
{
	struct addr b;

	assert_int_equal(addr_parse(text, &b), 0);
	return !addr_cmp(a, &b);
}

static void test_v4(void **state)
{
	struct msg_spec s = v4();
	struct ct_entry e = must_parse(&s);

	(void)state;
	assert_int_equal(e.l4, SLUICE_TCP);
	assert_true(addr_is(&e.orig.src, "203.0.113.7"));
	assert_true(addr_is(&e.orig.dst, "192.0.2.2"));
	assert_true(addr_is(&e.reply.src, "192.0.2.2"));
	assert_true(addr_is(&e.reply.dst, "203.0.113.7"));
	assert_int_equal(e.orig.sport, 41000);
	assert_int_equal(e.orig.dport, 80);
	assert_int_equal(e.reply.sport, 80);
	assert_int_equal(e.reply.dport, 53211);
	assert_int_equal(e.status, s.status);
	assert_int_equal(e.id, 0x80000001);
	assert_int_equal(e.zone, 0);
	assert_false(e.helper);
}

static void test_v6(void **state)
{
	struct msg_spec s = v6();
	struct ct_entry e = must_parse(&s);

	(void)state;
	assert_int_equal(e.l4, SLUICE_UDP);
	assert_true(addr_is(&e.orig.src, "2001:db8::7"));
	assert_true(addr_is(&e.orig.dst, "2001:db8:2::2"));
	assert_true(addr_is(&e.reply.src, "2001:db8:2::2"));
	assert_true(addr_is(&e.reply.dst, "2001:db8::7"));
	assert_int_equal(e.orig.sport, 41000);
	assert_int_equal(e.reply.dport, 53211);
}

static void test_particulars(void **state)
{
	struct msg_spec s = v4();

	(void)state;
	s.type = IPCTNL_MSG_CT_DELETE;
	must_parse(&s);

	s = v4();
	s.zone = 0x102;
	assert_int_equal(must_parse(&s).zone, 0x102);
	s.zone = 0;
	s.reply_zone = 0x304;
	assert_int_equal(must_parse(&s).zone, 0x304);
	s.orig_zone = 0x506;
	assert_int_equal(must_parse(&s).zone, 0x506);

	s = v4();
	s.helper = "ftp";
	assert_true(must_parse(&s).helper);
	s.helper = NULL;
	s.status |= IPS_EXPECTED;
	assert_true(must_parse(&s).helper);
	s.status ^= IPS_EXPECTED | IPS_HELPER;
	assert_true(must_parse(&s).helper);

	s = v4();
	s.no_status = true;
	s.id = 0;
	assert_int_equal(must_parse(&s).status, 0);
	assert_int_equal(must_parse(&s).id, 0);
}

static void test_not_ours(void **state)
{
	struct msg_spec s = v4();
	struct ct_entry e = { .id = 4711 };
	enum ct_verb verb = CT_FOUND;
	struct msg m;

	(void)state;
	s.proto = IPPROTO_ICMP;
	s.no_ports = true;
	must_refuse(&s, -ENOMSG);
	s = v4();
	s.proto = IPPROTO_SCTP;
	must_refuse(&s, -ENOMSG);
	s = v4();
	s.family = AF_BRIDGE;
	must_refuse(&s, -ENOMSG);
	s = v4();
	s.type = IPCTNL_MSG_CT_GET;
	must_refuse(&s, -ENOMSG);
	s = v4();
	m = msg_make(&s);
	m.h.nlmsg_type = NFNL_SUBSYS_CTNETLINK_EXP << 8;
	assert_int_equal(parse(&m.h, &verb, &e), -ENOMSG);
	m.h.nlmsg_type = NLMSG_ERROR;
	assert_int_equal(parse(&m.h, &verb, &e), -ENOMSG);
}

static void test_bad(void **state)
{
	struct msg_spec s = v4();

	(void)state;
	s.no_orig = true;
	must_refuse(&s, -EBADMSG);
	s = v4();
	s.no_reply = true;
	must_refuse(&s, -EBADMSG);
	s = v4();
	s.no_ip = true;
	must_refuse(&s, -EBADMSG);
	s = v4();
	s.no_proto = true;
	must_refuse(&s, -EBADMSG);
	s = v4();
	s.no_ports = true;
	must_refuse(&s, -EBADMSG);
	s = v4();
	s.src = NULL;
	must_refuse(&s, -EBADMSG);
	s = v6();
	s.reply_dst = NULL;
	must_refuse(&s, -EBADMSG);
}

/* Values of another size than they have to be, at the end of the message: of two attributes the last one counts. */
static void test_sizes(void **state)
{
	static const struct {
		uint16_t type, size;
	} wrong[] = { { CTA_STATUS, 0 }, { CTA_STATUS, 3 }, { CTA_STATUS, 8 }, { CTA_ID, 2 },
		      { CTA_ZONE, 1 },   { CTA_ZONE, 4 },   { CTA_ID, 8 } };
	const uint8_t zeros[8] = { 0 };
	struct msg_spec s = v4();
	struct ct_entry e = { 0 };
	enum ct_verb verb;
	struct msg m;

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
		m = msg_make(&s);
		msg_put(&m, wrong[i].type, zeros, wrong[i].size);
		assert_int_equal(parse(&m.h, &verb, &e), -EBADMSG);
	}
	m = msg_make(&s);
	msg_put(&m, CTA_STATUS, zeros, 4);
	assert_int_equal(parse(&m.h, &verb, &e), 0);
	assert_int_equal(e.status, 0);
	/* One that nobody has heard of. */
	msg_put(&m, CTA_MAX + 7, zeros, 1);
	assert_int_equal(parse(&m.h, &verb, &e), 0);
}

/* A message that ends anywhere, and one byte of it wrong: never more is read than is there. */
static void test_cut(void **state)
{
	struct msg_spec specs[] = { v4(), v6() };
	struct ct_entry e = { 0 };
	enum ct_verb verb;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct msg m;
		uint32_t len, whole = 0;

		specs[i].helper = "ftp";
		specs[i].zone = 7;
		m = msg_make(&specs[i]);
		len = m.h.nlmsg_len;
		for (uint32_t at = NLMSG_HDRLEN; at <= len; at++) {
			m.h.nlmsg_len = at;
			if (!parse(&m.h, &verb, &e))
				whole++;
			else
				assert_int_equal(whole, 0);
		}
		/* What follows the tuples may be missing, not they. */
		assert_in_range(whole, 4, 80);
	}
}

static void test_wrong_byte(void **state)
{
	struct msg_spec specs[] = { v4(), v6() };
	static const uint8_t values[] = { 0, 1, 2, 3, 4, 5, 7, 8, 0x10, 0x7f, 0x80, 0xc0, 0xff };
	struct ct_entry e = { 0 };
	enum ct_verb verb;
	unsigned refused = 0;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct msg m;

		specs[i].helper = "ftp";
		specs[i].orig_zone = 7;
		m = msg_make(&specs[i]);
		for (uint32_t at = NLMSG_HDRLEN; at < m.h.nlmsg_len; at++) {
			uint8_t was = m.b[at];

			for (size_t v = 0; v < sizeof(values); v++) {
				m.b[at] = values[v];
				refused += parse(&m.h, &verb, &e) != 0;
			}
			m.b[at] = was;
		}
		assert_int_equal(parse(&m.h, &verb, &e), 0);
	}
	assert_in_range(refused, 100, 10000);
}

/* Writing */

/* An attribute of a message, not of what is nested in it. */
static const struct nlattr *attr_of(const char *buf, uint16_t type)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	const struct nlattr *a, *found = NULL;

	mnl_attr_for_each(a, h, sizeof(struct nfgenmsg))
	{
		if (mnl_attr_get_type(a) != type)
			continue;
		assert_null(found);
		found = a;
	}
	return found;
}

static uint32_t be32_of(const char *buf, uint16_t type)
{
	const struct nlattr *a = attr_of(buf, type);

	assert_non_null(a);
	assert_int_equal(mnl_attr_get_payload_len(a), 4);
	return ntohl(mnl_attr_get_u32(a));
}

static void test_build_dump(void **state)
{
	char buf[CTNL_ASK_MAX] __attribute__((aligned(8)));
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;

	(void)state;
	assert_int_equal(ctnl_build_dump(buf, 77), 0);
	assert_int_equal(h->nlmsg_type, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET);
	assert_int_equal(h->nlmsg_flags, NLM_F_REQUEST | NLM_F_DUMP);
	assert_int_equal(h->nlmsg_seq, 77);
	assert_int_equal(be32_of(buf, CTA_STATUS), IPS_SRC_NAT);
	assert_int_equal(be32_of(buf, CTA_STATUS_MASK), IPS_SRC_NAT);
}

/* What is written is what the parser reads, were it an answer. */
static void test_build(void **state)
{
	struct msg_spec specs[] = { v4(), v6() };
	char buf[CTNL_ASK_MAX] __attribute__((aligned(8)));
	struct nlmsghdr *h = (struct nlmsghdr *)buf;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct ct_entry want = must_parse(&specs[i]), e = { 0 };
		struct ctnl_ask a = {
			.type = IPCTNL_MSG_CT_NEW,
			.flags = NLM_F_ACK | NLM_F_CREATE,
			.seq = 99,
			.l4 = want.l4,
			.zone = 0x102,
			.id = 0x80000001,
			.timeout_s = 30,
			.tuple = &want.orig,
			.reply = &want.reply,
		};
		enum ct_verb verb;

		assert_int_equal(ctnl_build(buf, &a), 0);
		assert_int_equal(h->nlmsg_flags, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE);
		assert_int_equal(h->nlmsg_seq, 99);
		assert_int_equal(be32_of(buf, CTA_ID), 0x80000001);
		assert_int_equal(be32_of(buf, CTA_TIMEOUT), 30);
		assert_int_equal(parse(h, &verb, &e), 0);
		want.zone = 0x102;
		assert_true(ct_same(&e, &want));

		/* Alone. */
		a.type = IPCTNL_MSG_CT_DELETE;
		a.reply = NULL;
		a.id = a.timeout_s = 0;
		a.zone = 0;
		assert_int_equal(ctnl_build(buf, &a), 0);
		assert_null(attr_of(buf, CTA_TUPLE_REPLY));
		assert_null(attr_of(buf, CTA_ID));
		assert_null(attr_of(buf, CTA_ZONE));
		assert_null(attr_of(buf, CTA_TIMEOUT));
		/* Without a tuple it would flush the whole table. */
		assert_non_null(attr_of(buf, CTA_TUPLE_ORIG));
	}
}

/* Reading */

static struct ctnl c;
static int tx; /* what goes in here comes out of both sockets */
static int tx_dump;

static struct mnl_socket *stand_in(int *ret_tx)
{
	struct mnl_socket *nl;
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds), 0);
	nl = mnl_socket_fdopen(fds[0]);
	assert_non_null(nl);
	*ret_tx = fds[1];
	return nl;
}

static int reader_open(void **state)
{
	(void)state;
	memset(&c, 0, sizeof(c));
	c.events = stand_in(&tx);
	c.dump = stand_in(&tx_dump);
	c.batch = calloc(1, sizeof(*c.batch));
	assert_non_null(c.batch);
	ctnl_batch_init(c.batch);
	return 0;
}

static int reader_close(void **state)
{
	(void)state;
	mnl_socket_close(c.events);
	mnl_socket_close(c.dump);
	free(c.batch);
	close(tx);
	close(tx_dump);
	return 0;
}

/* Ports in the order in which they were told. */
static uint16_t told[256];
static enum ct_verb told_verb[256];
static size_t n_told;

static void note(void *arg, enum ct_verb verb, const struct ct_entry *e)
{
	assert_ptr_equal(arg, &c);
	assert_in_range(n_told, 0, 255);
	told_verb[n_told] = verb;
	told[n_told++] = e->orig.sport;
}

/* Append a message for this port to a datagram. */
static size_t add(uint8_t *at, struct msg_spec s, uint16_t port)
{
	struct msg m;

	s.sport = port;
	m = msg_make(&s);
	memcpy(at, m.b, m.h.nlmsg_len);
	return m.h.nlmsg_len;
}

static void give(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, 0), len);
}

static void give_one(const struct msg_spec *s, uint16_t port)
{
	uint8_t buf[MSG_ROOM];

	give(tx, buf, add(buf, *s, port));
}

static void test_read_many(void **state)
{
	struct msg_spec s = v4();
	uint8_t buf[16 * MSG_ROOM];
	size_t len = 0;

	(void)state;
	n_told = 0;
	assert_int_equal(ctnl_read(&c, 10, note, &c), 0);
	/* Five in a datagram, then one, then five. */
	for (uint16_t i = 0; i < 5; i++)
		len += add(buf + len, s, (uint16_t)(100 + i));
	give(tx, buf, len);
	give_one(&s, 105);
	for (uint16_t i = len = 0; i < 5; i++)
		len += add(buf + len, s, (uint16_t)(106 + i));
	give(tx, buf, len);
	assert_int_equal(ctnl_read(&c, 3, note, &c), 3);
	assert_int_equal(n_told, 3);
	assert_int_equal(ctnl_read(&c, 4, note, &c), 4);
	assert_int_equal(ctnl_read(&c, 4, note, &c), 4);
	assert_int_equal(ctnl_read(&c, 4, note, &c), 0);
	assert_int_equal(n_told, 11);
	for (uint16_t i = 0; i < 11; i++)
		assert_int_equal(told[i], 100 + i);
	assert_int_equal(c.stats.events, 11);
	assert_int_equal(c.stats.bad, 0);
}

/* Whatever the filter let in by mistake is not delivered; bad messages are counted and do not hide what follows. */
static void test_read_bad(void **state)
{
	struct msg_spec s = v4(), plain = v4(), icmp = v4(), bad = v4(), gone = v4();
	static uint8_t big[CTNL_EVENT_MAX + 4];
	uint8_t buf[4 * MSG_ROOM];
	struct nlmsghdr h = { .nlmsg_len = 15 };
	size_t len;

	(void)state;
	n_told = 0;
	plain.status = IPS_CONFIRMED;
	icmp.proto = IPPROTO_ICMP;
	bad.no_ip = true;
	gone.type = IPCTNL_MSG_CT_DELETE;
	give_one(&plain, 1);
	give_one(&icmp, 2);
	give_one(&bad, 3);
	give(tx, &h, sizeof(h)); /* says that it is shorter than its header */
	h.nlmsg_len = 17;
	give(tx, &h, sizeof(h)); /* longer than what there is */
	give(tx, "abc", 3);
	give(tx, "", 0);
	len = add(big, s, 4);
	give(tx, big, sizeof(big)); /* cut off */
	len = add(buf, bad, 5);
	len += add(buf + len, s, 6);
	give(tx, buf, len);
	give_one(&gone, 7);
	/* Datagrams without a message do not count as messages. */
	assert_int_equal(ctnl_read(&c, 100, note, &c), 6);
	assert_int_equal(n_told, 2);
	assert_int_equal(told[0], 6);
	assert_int_equal(told_verb[0], CT_NEW);
	assert_int_equal(told[1], 7);
	assert_int_equal(told_verb[1], CT_GONE);
	assert_int_equal(c.stats.events, 2);
	assert_int_equal(c.stats.bad, 7);
	assert_int_equal(c.stats.losses, 0);
}

static size_t end_put(uint8_t *at, uint16_t type, uint16_t flags, uint32_t seq, int32_t code)
{
	struct {
		struct nlmsghdr h;
		int32_t code;
	} end = { { .nlmsg_len = sizeof(end),
		    .nlmsg_type = type,
		    .nlmsg_flags = flags,
		    .nlmsg_seq = seq },
		  code };

	memcpy(at, &end, sizeof(end));
	return sizeof(end);
}

/* A dump of ports 1 to 5 in two datagrams, ended so. */
static int dump_through(uint16_t flags, uint16_t type, int32_t code)
{
	struct msg_spec s = v4(), stale = v4();
	uint8_t buf[8 * MSG_ROOM];
	size_t len = 0;
	int r, calls = 0;

	n_told = 0;
	c.dumping = true;
	c.interrupted = false;
	c.dump_seq = s.seq = 12;
	c.dump_rest = (struct ctnl_rest){ 0 };
	stale.seq = 11;
	s.flags = NLM_F_MULTI;
	assert_int_equal(ctnl_dump_read(&c, 10, note, &c), 1);
	/* Of an earlier one, its end too. */
	len = add(buf, stale, 99);
	len += end_put(buf + len, NLMSG_DONE, NLM_F_MULTI, 11, 0);
	for (uint16_t i = 1; i <= 3; i++)
		len += add(buf + len, s, i);
	give(tx_dump, buf, len);
	s.flags |= flags;
	len = add(buf, s, 4);
	s.status = IPS_CONFIRMED;
	len += add(buf + len, s, 98);
	s.status = IPS_SRC_NAT;
	s.flags = NLM_F_MULTI;
	len += add(buf + len, s, 5);
	give(tx_dump, buf, len);
	len = end_put(buf, type, NLM_F_MULTI, 12, code);
	give(tx_dump, buf, len);
	while ((r = ctnl_dump_read(&c, 2, note, &c)) == 1 && calls++ < 100)
		;
	assert_in_range(calls, 4, 10);
	for (uint16_t i = 0; i < 5; i++) {
		assert_int_equal(told[i], i + 1);
		assert_int_equal(told_verb[i], CT_FOUND);
	}
	assert_int_equal(n_told, 5);
	assert_false(c.dumping);
	return r;
}

static void test_dump(void **state)
{
	(void)state;
	assert_int_equal(dump_through(0, NLMSG_DONE, 0), 0);
	/* In the middle: told at the end. */
	assert_int_equal(dump_through(NLM_F_DUMP_INTR, NLMSG_DONE, 0), -EINTR);
	assert_int_equal(dump_through(0, NLMSG_DONE, 0), 0);
	assert_int_equal(dump_through(0, NLMSG_ERROR, -EPERM), -EPERM);
	assert_int_equal(dump_through(0, NLMSG_DONE, -ENOMEM), -ENOMEM);
	assert_int_equal(dump_through(0, NLMSG_DONE, 1), -EBADMSG);
	assert_int_equal(c.stats.events, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_v4),
		cmocka_unit_test(test_v6),
		cmocka_unit_test(test_particulars),
		cmocka_unit_test(test_not_ours),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_wrong_byte),
		cmocka_unit_test(test_build_dump),
		cmocka_unit_test(test_build),
		cmocka_unit_test_setup_teardown(test_read_many, reader_open, reader_close),
		cmocka_unit_test_setup_teardown(test_read_bad, reader_open, reader_close),
		cmocka_unit_test_setup_teardown(test_dump, reader_open, reader_close),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

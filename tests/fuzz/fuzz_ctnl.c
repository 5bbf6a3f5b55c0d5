/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Any bytes as messages of ctnetlink: never more is read than is there, and an entry comes out whole or not at all. The first byte chooses whether the header is put right (most
 * mutations of it would only be refused); then each message is parsed from memory of its very size.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctnl_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void one(const uint8_t *data, size_t len)
{
	struct nlmsghdr *h = malloc(len);
	struct ct_entry e, before;
	enum ct_verb verb = CT_FOUND;
	int r;

	if (!h)
		abort();
	memcpy(h, data, len);
	memset(&e, 0xa5, sizeof(e));
	before = e;
	r = ctnl_parse(h, &verb, &e);
	if (r && (verb != CT_FOUND || memcmp(&e, &before, sizeof(e))))
		abort();
	if (r && r != -ENOMSG && r != -EBADMSG)
		abort();
	if (!r && ((verb != CT_NEW && verb != CT_GONE) ||
		   (e.l4 != SLUICE_TCP && e.l4 != SLUICE_UDP) || !ct_same(&e, &e)))
		abort();
	free(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nlmsghdr h;
	uint8_t *fixed;

	if (size < 1 + sizeof(h))
		return 0;
	if (*data & 1) {
		/* One message, of what there is. */
		fixed = malloc(size - 1);
		if (!fixed)
			abort();
		memcpy(fixed, data + 1, size - 1);
		memcpy(&h, fixed, sizeof(h));
		h.nlmsg_len = (uint32_t)(size - 1);
		h.nlmsg_type = *data & 2 ? 0x100 : 0x102;
		memcpy(fixed, &h, sizeof(h));
		if (size - 1 > sizeof(h))
			fixed[sizeof(h)] = *data & 4 ? 2 : 10;
		one(fixed, size - 1);
		free(fixed);
		return 0;
	}
	data++;
	size--;
	while (size >= sizeof(h)) {
		memcpy(&h, data, sizeof(h));
		if (h.nlmsg_len < sizeof(h) || h.nlmsg_len > size)
			break;
		one(data, h.nlmsg_len);
		if (NLMSG_ALIGN(h.nlmsg_len) >= size)
			break;
		size -= NLMSG_ALIGN(h.nlmsg_len);
		data += NLMSG_ALIGN(h.nlmsg_len);
	}
	return 0;
}

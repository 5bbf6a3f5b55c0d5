// SPDX-License-Identifier: BSD-2-Clause
#include "collision.h"

#include <stddef.h>

const char *collision_source_name(uint32_t source)
{
	static const struct {
		enum collision_source bit;
		const char *name;
	} names[] = {
		{ COLLISION_CTNETLINK, "ctnetlink" }, { COLLISION_NETFILTER, "netfilter" },
		{ COLLISION_DUMP, "dump" },           { COLLISION_DATAPLANE, "dataplane" },
		{ COLLISION_INVENTORY, "inventory" },
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (source & names[i].bit)
			return names[i].name;
	return "";
}

const char *collision_kind_name(enum collision_kind k)
{
	switch (k) {
	case COLLISION_REWRITE:
		return "rewrite";
	case COLLISION_RISK:
		return "risk";
	}
	return "";
}

/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a dump of sockets said, to be asked without a system call: by place, and by cookie. Filled and then sealed. Bounded: sockets beyond SOCKTABLE_MAX are counted and dropped.
 * Pure; programs choose the ports, so the hash is keyed.
 */
#ifndef SOCKTABLE_H
#define SOCKTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sockdiag.h"

#define SOCKTABLE_MAX (1U << 20)

struct socktable {
	struct sockdiag_sock *list;
	size_t n, cap;
	size_t max;
	uint64_t cut;        /* dropped since it was emptied */
	uint32_t *by_place;  /* index + 1, or 0; linear probing */
	uint32_t *by_cookie; /* the same */
	size_t mask;
	uint64_t key[2];
};

/* Keyed; for tables of one's own. */
uint64_t socktable_hash(const uint64_t key[2], enum sluice_l4 l4, const struct addr *local,
			uint16_t lport, const struct addr *remote, uint16_t rport);

/* max: SOCKTABLE_MAX, or fewer. */
void socktable_init(struct socktable *t, const uint64_t key[2], size_t max);
void socktable_done(struct socktable *t);
/* Leaves the memory for the next filling. */
void socktable_empty(struct socktable *t);
/* 0; -ENOMEM. */
int socktable_add(struct socktable *t, const struct sockdiag_sock *s);
/* Makes the indexes; without it nothing is found. 0; -ENOMEM, and then the table is empty. */
int socktable_seal(struct socktable *t);

/*
 * The next socket at a place, from *at on, which is 0 at first. NULL: no more (of many, 16 are known). remote NULL: those that are not connected.
 */
const struct sockdiag_sock *socktable_next(const struct socktable *t, enum sluice_l4 l4,
					   const struct addr *local, uint16_t lport,
					   const struct addr *remote, uint16_t rport, size_t *at);
bool socktable_has_cookie(const struct socktable *t, uint64_t cookie);

#endif

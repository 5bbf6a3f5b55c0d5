/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The watcher's second source: bpf/watch.bpf.c, a BPF_PROG_TYPE_NETFILTER program (Linux 6.4 on) at POSTROUTING after srcnat, IPv4 and IPv6, which looks at the first packet of
 * each connection that a local socket makes, and tells those alone whose source port was changed. One ring for all namespaces.
 */
#ifndef NFWATCH_H
#define NFWATCH_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "errtext.h"
#include "sluice_watch.h"

struct nfwatch;

/*
 * -EOPNOTSUPP: the kernel has no such programs, or does not tell how its conntrack entries are laid out (not even with nf_conntrack loaded); -EPERM: CAP_BPF, CAP_PERFMON and
 * CAP_NET_ADMIN are needed. err is filled.
 */
int nfwatch_open(struct nfwatch **ret, struct errtext *err);

/* Has the kernel such programs at all? 0, or as nfwatch_open(). */
int nfwatch_probe(struct errtext *err);
void nfwatch_close(struct nfwatch *w); /* Detaches. NULL is fine. */

/*
 * Attach in the caller's network namespace: it stays there until nfwatch_detach() or _close(), and keeps the namespace as long. A second time in the same one does nothing. CAP_NET_ADMIN there. -EOPNOTSUPP: no
 * CONFIG_NETFILTER_BPF_LINK; -EBUSY: other hooks have all 16 priorities from 101 on.
 */
int nfwatch_attach(struct nfwatch *w, struct errtext *err);
/* Let go of a namespace, by its inode. One where it is not attached is fine. */
void nfwatch_detach(struct nfwatch *w, ino_t netns);

int nfwatch_fd(const struct nfwatch *w); /* readable when there are rewrites */
/* At most max of them; returns how many, or -errno. */
int nfwatch_read(struct nfwatch *w, unsigned max,
		 void (*fn)(void *arg, const struct sluice_rewrite *r), void *arg);

struct sluice_watch_stats nfwatch_stats(const struct nfwatch *w);

#endif

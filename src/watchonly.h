/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * "sluiced --watch-only": a machine without slices, whose NAT is conntrack's. Nothing is programmed, no address is taken, nothing is leased: conntrack is watched in the namespaces that
 * the configuration names, for every local address, and what it does to sockets is stored and told. The control socket answers GetStatus, ListCollisions and Monitor.
 */
#ifndef WATCHONLY_H
#define WATCHONLY_H

/* Runs until SIGTERM. The exit code. */
int watchonly_main(const char *config_path);

#endif

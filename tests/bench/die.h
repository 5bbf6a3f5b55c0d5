/* SPDX-License-Identifier: BSD-2-Clause */
/* What the benchmark can't go on after. */
#ifndef BENCH_DIE_H
#define BENCH_DIE_H

__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);

#endif

/* SPDX-License-Identifier: BSD-2-Clause */
/* The daemon's clocks, by what each is for. Deciding code is told the time and never asks for it. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>

#define NS_PER_S  1000000000ULL
#define NS_PER_MS 1000000ULL

/* CLOCK_BOOTTIME: deadlines, ages; the clock of the data plane (bpf_ktime_get_boot_ns()). */
uint64_t clock_boot_ns(void);
/* CLOCK_MONOTONIC: how long a client has been slow. It stands still while the machine is suspended. */
uint64_t clock_mono_ms(void);
/* CLOCK_REALTIME: what a person is told, and what is stored for them. */
int64_t clock_utc_ms(void);

#endif

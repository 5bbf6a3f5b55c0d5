/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The daemon's log: to stderr with "<N>" priority prefixes when systemd reads it (JOURNAL_STREAM), plain lines with -d,
 * syslog otherwise. Only functions at the edge log; deciding code returns errors.
 */
#ifndef LOG_H
#define LOG_H

#include <stdbool.h>
#include <syslog.h>

void log_open(const char *ident, bool foreground, bool verbose);
void log_msg(int priority, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_err(...)    log_msg(LOG_ERR, __VA_ARGS__)
#define log_warn(...)   log_msg(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_msg(LOG_NOTICE, __VA_ARGS__)
#define log_info(...)   log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...)  log_msg(LOG_DEBUG, __VA_ARGS__)

#endif

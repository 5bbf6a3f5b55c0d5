# SPDX-License-Identifier: BSD-2-Clause
# Everything built goes under build/. V=1 shows the commands. `make help` lists the targets.

VERSION := $(shell cat VERSION)
PREFIX ?= /usr
LIBDIR ?= $(PREFIX)/lib
SYSCONFDIR ?= /etc
DESTDIR ?=
B := build

CC ?= gcc
CLANG ?= clang
OBJCOPY ?= objcopy
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PKGS := libbpf libnl-3.0 libnl-route-3.0 libmnl libnetfilter_conntrack libnftables sqlite3 jansson libconfuse libcap-ng libmicrohttpd smartcols

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla \
	-Wno-missing-field-initializers
WERROR := $(if $(CI),-Werror)
CPPFLAGS += -D_GNU_SOURCE -DSLUICE_VERSION='"$(VERSION)"' -Iinclude -Isrc -I$(B) -MMD -MP
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu17 -fstack-protector-strong $(WARN) $(WERROR) $(PKG_CFLAGS)
PKG_CFLAGS = $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS = $(shell pkg-config --libs $(PKGS) 2>/dev/null)
LDFLAGS += -Wl,--as-needed
SAN := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
BPF_CFLAGS := -target bpf -mcpu=v3 -O2 -g -std=gnu17 -Wall -Wextra -Werror -Wno-unused-parameter \
	-Wno-address-of-packed-member -Iinclude -Ibpf -I/usr/include/$(shell uname -m)-linux-gnu

JOBS := $(shell nproc)
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)')

# A program is src/NAME.c with main(); every other file of src/ is a member of one archive.
PROGS := sluiced sluice
CORE := $(filter-out $(PROGS:%=src/%.c),$(wildcard src/*.c))
UNIT := $(patsubst tests/unit/test_%.c,%,$(wildcard tests/unit/test_*.c))
BPFTEST := $(patsubst tests/bpf/test_%.c,%,$(wildcard tests/bpf/test_*.c))
TOOLS := $(patsubst tests/tools/%.c,%,$(wildcard tests/tools/*.c))
KERNEL := $(patsubst tests/kernel/fact_%.c,%,$(wildcard tests/kernel/fact_*.c))
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

# libsluice is src/lib/*.c and the two modules that it shares with the daemon. Examples use nothing else.
LIBSRC := $(patsubst src/%.c,%,$(wildcard src/lib/*.c))
LIBOBJ := $(LIBSRC:lib/%=$(B)/lib/%.o) $(B)/lib/varlink.o $(B)/lib/errtext.o
LIBRARY := $(B)/libsluice.so $(B)/libsluice.a $(B)/sluice.pc
EXAMPLES := $(patsubst src/examples/%.c,%,$(wildcard src/examples/*.c))

.PHONY: all demo check check-unit check-bpf check-net check-crash check-kernel check-vm fuzz bench conformance lint install deb clean help setup
.SECONDARY:
.DELETE_ON_ERROR:

all: $(PROGS:%=$(B)/%) $(LIBRARY) $(EXAMPLES:%=$(B)/examples/%) $(TOOLS:%=$(B)/tools/%)

help:
	@sed -n 's/^## //p' Makefile

## make                build daemon, command, library, examples and the tests' tools
## make demo           as root: install what is needed, build, run the collision scenario, clean up
## make check          as root: install what is needed, build, run every test
## make check-unit     parts of it: unit (ASan, UBSan), bpf, net, crash, kernel
## make check-vm       the main ones of these on Debian 12's kernel 6.1, which scripts/vm boots in QEMU
## make fuzz           fuzz each parser, FUZZ_SECONDS each (default 60)
## make bench          measure: NAT against nftables, leases and exec against programs without, watching conntrack
## make conformance    as root: play every requirement of COMPLIANCE.md and report, a line each; compare with nftables
## make lint           formatting, static analysis, manual pages, shell scripts
## make install        into DESTDIR and PREFIX
## make deb            a Debian package, in build/
## make clean          remove build/

setup:
	@scripts/setup

$(B)/bpf/%.bpf.o: bpf/%.bpf.c $(wildcard bpf/*.h) include/sluice_abi.h include/sluice_flow.h include/sluice_watch.h include/sluice_whose.h
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c $< -o $@.full
	$(Q)$(BPFTOOL) gen object $@ $@.full

$(B)/%.skel.h: $(B)/bpf/%.bpf.o
	$(call say,SKEL,$@)
	$(Q)$(BPFTOOL) gen skeleton $< name $(subst -,_,$*)_bpf > $@

SKELS := $(patsubst bpf/%.bpf.c,$(B)/%.skel.h,$(wildcard bpf/*.bpf.c))

$(B)/obj/%.o: src/%.c | $(SKELS)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@

# The sanitized archive serves the unit tests; SLUICE_FAULT compiles the crash points in.
$(B)/san/%.o: src/%.c | $(SKELS)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -O1 $(SAN) -c $< -o $@

$(B)/fault/%.o: src/%.c | $(SKELS)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -DSLUICE_FAULT $(CFLAGS) -c $< -o $@

# The interface's description is compiled in.
$(B)/obj/control.o $(B)/san/control.o $(B)/fault/control.o: src/io.sluice.varlink

$(B)/obj/core.a: $(CORE:src/%.c=$(B)/obj/%.o)
$(B)/san/core.a: $(CORE:src/%.c=$(B)/san/%.o)
$(B)/fault/core.a: $(CORE:src/%.c=$(B)/fault/%.o)
$(B)/%/core.a:
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar crs $@ $^

$(PROGS:%=$(B)/%): $(B)/%: $(B)/obj/%.o $(B)/obj/core.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

$(B)/fault/sluiced: $(B)/fault/sluiced.o $(B)/fault/core.a
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

$(B)/lib/%.o: src/lib/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -c $< -o $@

$(B)/lib/%.o: src/%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -fvisibility=hidden -c $< -o $@

$(B)/libsluice.so.0: $(LIBOBJ) src/lib/libsluice.map
	$(call say,LD,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(@F),-z,defs,--version-script=src/lib/libsluice.map \
		$(LIBOBJ) $(shell pkg-config --libs jansson) -lpthread -o $@

$(B)/libsluice.so: $(B)/libsluice.so.0
	$(Q)ln -sf $(<F) $@

# One object, so that names which are not sluice_* can stay inside.
$(B)/libsluice.a: $(LIBOBJ)
	$(call say,AR,$@)
	$(Q)$(LD) -r $^ -o $(B)/lib/libsluice.o
	$(Q)$(OBJCOPY) --localize-hidden $(B)/lib/libsluice.o
	$(Q)rm -f $@ && ar crs $@ $(B)/lib/libsluice.o

# For the unit tests, whose core.a has the shared modules.
$(B)/san/libsluice.a: $(LIBSRC:%=$(B)/san/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar crs $@ $^

# It depends on variables: it is made anew each time, and replaced when it differs.
.PHONY: $(B)/sluice.pc
$(B)/sluice.pc: src/lib/sluice.pc.in
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(VERSION)|' $< > $@.new
	$(Q)cmp -s $@.new $@ && rm $@.new || mv $@.new $@

$(B)/examples/%: src/examples/%.c $(B)/libsluice.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $< $(B)/libsluice.a $(shell pkg-config --libs jansson) -o $@ -lpthread

$(B)/tools/leasebench: $(B)/libsluice.a
$(B)/unit/libsluice $(B)/unit/libsluice_strain: $(B)/san/libsluice.a | $(B)/libsluice.so $(B)/libsluice.a

$(B)/tools/%: tests/tools/%.c $(B)/obj/core.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) $< $(filter-out $(B)/obj/core.a,$(filter %.a,$^)) $(B)/obj/core.a $(LIBS) -o $@ -lpthread

$(B)/unit/%: tests/unit/test_%.c $(B)/san/core.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests/unit $(CFLAGS) -O1 $(SAN) $(LDFLAGS) $< $(filter-out $(B)/san/core.a,$(filter %.a,$^)) $(B)/san/core.a $(LIBS) -lcmocka -o $@ -lpthread

$(B)/bpftest/%: tests/bpf/test_%.c $(wildcard tests/bpf/*.h) $(B)/obj/core.a
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests/bpf $(CFLAGS) $(LDFLAGS) $< $(B)/obj/core.a $(LIBS) -lcmocka -o $@

$(B)/kernel/%: tests/kernel/fact_%.c
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -Itests/kernel $(CFLAGS) $(LDFLAGS) $< $(LIBS) -o $@

# The fuzz targets share one archive, which is instrumented like they are.
FUZZ_SAN := -fsanitize=fuzzer-no-link,address,undefined
$(B)/fz/%.o: src/%.c | $(SKELS)
	$(call say,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(CPPFLAGS) -std=gnu17 -O1 -g $(PKG_CFLAGS) $(FUZZ_SAN) -c $< -o $@

$(B)/fz/control.o: src/io.sluice.varlink
$(B)/fz/core.a: $(CORE:src/%.c=$(B)/fz/%.o)

$(B)/fuzz/%: tests/fuzz/fuzz_%.c $(B)/fz/core.a
	$(call say,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(CPPFLAGS) -std=gnu17 -O1 -g $(PKG_CFLAGS) -fsanitize=fuzzer,address,undefined $< $(B)/fz/core.a $(LIBS) -o $@

$(B)/bench/xdp.skel.h: tests/bench/xdp.bpf.c tests/bench/frame.h include/sluice_abi.h
	$(call say,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c $< -o $(@D)/xdp.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $(@D)/xdp.bpf.o name bench_xdp_bpf > $@

BENCH := $(filter-out %.bpf.c,$(wildcard tests/bench/*.c))
$(B)/bench/bench: $(BENCH) $(wildcard tests/bench/*.h) $(B)/bench/xdp.skel.h
	$(call say,CC,$@)
	$(Q)$(CC) $(CPPFLAGS) -Itests/bench $(CFLAGS) $(LDFLAGS) $(BENCH) $(LIBS) -o $@

UNIT_BINS := $(UNIT:%=$(B)/unit/%)
BPF_BINS := $(BPFTEST:%=$(B)/bpftest/%)
KERNEL_BINS := $(KERNEL:%=$(B)/kernel/%)
FUZZ_BINS := $(FUZZ:%=$(B)/fuzz/%)

check: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) check-build
	$(Q)tests/run unit bpf kernel net crash fuzz

.PHONY: check-build
check-build: all $(UNIT_BINS) $(BPF_BINS) $(KERNEL_BINS) $(B)/fault/sluiced $(FUZZ_BINS)

check-unit: $(UNIT_BINS)
	$(Q)tests/run unit
check-bpf: $(BPF_BINS)
	$(Q)tests/run bpf
check-kernel: $(KERNEL_BINS)
	$(Q)tests/run kernel
check-net: all
	$(Q)tests/run net
check-crash: all $(B)/fault/sluiced
	$(Q)tests/run crash
# What depends on the kernel. Without KVM it takes an hour or two.
VM_NET := scenarios clsact uplink drops fill silent reload leases exec ipv6 collisions
check-vm:
	$(Q)scripts/setup vm
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all $(BPF_BINS) $(KERNEL_BINS)
	$(Q)scripts/vm --limit 14400 -- env TEST_TIMEOUT=3000 tests/run kernel bpf $(VM_NET:%=net/%)

fuzz: $(FUZZ_BINS)
	$(Q)FUZZ_SECONDS=$(or $(FUZZ_SECONDS),60) tests/run fuzz

demo: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all
	$(Q)netns-lab/lab run collision

bench: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all $(B)/bench/bench
	$(Q)tests/bench/bench.sh --json $(B)/bench.json
	$(Q)tests/bench/leases.sh --json $(B)/bench.json
	$(Q)tests/bench/watch.sh --json $(B)/bench.json

conformance: setup
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) all $(UNIT_BINS) $(BPF_BINS)
	$(Q)tests/conformance/run

lint:
	$(Q)scripts/setup lint
	$(Q)$(MAKE) --no-print-directory -j$(JOBS) $(SKELS) $(B)/bench/xdp.skel.h
	$(Q)scripts/lint

install: $(PROGS:%=$(B)/%) $(LIBRARY)
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(SYSCONFDIR)/sluice \
		$(DESTDIR)/lib/systemd/system
	install -m 755 $(B)/sluiced $(DESTDIR)$(PREFIX)/sbin/sluiced
	install -m 755 $(B)/sluice $(DESTDIR)$(PREFIX)/bin/sluice
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include
	install -m 644 $(B)/libsluice.so.0 $(B)/libsluice.a $(DESTDIR)$(LIBDIR)/
	ln -sf libsluice.so.0 $(DESTDIR)$(LIBDIR)/libsluice.so
	install -m 644 $(B)/sluice.pc $(DESTDIR)$(LIBDIR)/pkgconfig/
	install -m 644 include/sluice.h $(DESTDIR)$(PREFIX)/include/
	install -m 644 scripts/sluiced.service scripts/sluiced-watch.service $(DESTDIR)/lib/systemd/system/
	[ -e $(DESTDIR)$(SYSCONFDIR)/sluice/sluice.conf ] || \
		install -m 644 scripts/sluice.conf $(DESTDIR)$(SYSCONFDIR)/sluice/sluice.conf
	for page in man/*.[1-8]; do \
		section=$${page##*.}; \
		install -d $(DESTDIR)$(PREFIX)/share/man/man$$section; \
		install -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$$section/; \
	done

deb: $(PROGS:%=$(B)/%) $(LIBRARY)
	$(Q)scripts/deb

clean:
	rm -rf $(B)

-include $(wildcard $(B)/*/*.d $(B)/san/lib/*.d)

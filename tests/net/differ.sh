#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Random packets through sluice and through nftables' NAT: what comes out is the same but for known reasons. A short run, whose seed is printed; DIFFER_SEED
# repeats one.
exec "$(dirname "$0")/../conformance/differ.sh" 10 ${DIFFER_SEED:+"$DIFFER_SEED"}

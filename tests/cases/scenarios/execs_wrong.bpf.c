// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The same, without an event for some of the programs.
#define FORGETS
#include "execs.bpf.c"

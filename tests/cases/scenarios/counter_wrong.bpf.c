// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
// The counter, off by one for each frame.
#define ONE 2
#include "counter.bpf.c"

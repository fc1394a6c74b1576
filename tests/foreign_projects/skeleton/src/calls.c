// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "calls.skel.h"

enum { CALLS = 3 };

int main(int argc, char **argv)
{
	__u32 zero = 0;
	__u64 counted = 0;
	struct calls *skeleton;

	if (argc != 2 || strcmp(argv[1], "--self-test"))
		return 2;
	skeleton = calls__open();
	if (!skeleton)
		return 3;
	skeleton->rodata->watched = getpid();
	if (calls__load(skeleton) || calls__attach(skeleton))
		return 4;
	for (int i = 0; i < CALLS; i++)
		getppid();
	if (bpf_map__lookup_elem(skeleton->maps.calls, &zero, sizeof(zero), &counted, sizeof(counted), 0))
		return 5;
	printf("counted %llu of %d calls\n", counted, CALLS);
	calls__destroy(skeleton);
	return counted != CALLS;
}

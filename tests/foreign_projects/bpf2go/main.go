// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause

// Command calls is a loader with bpf2go: go generate, then go build.
package main

import (
	"fmt"
	"os"
	"syscall"

	"github.com/cilium/ebpf/link"
)

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target amd64 Calls bpf/calls.bpf.c -- -O2 -g -Wall -idirafter /usr/include/x86_64-linux-gnu

const calls = 3

func selfTest() error {
	spec, err := LoadCalls()
	if err != nil {
		return err
	}
	if err := spec.Variables["watched"].Set(uint32(os.Getpid())); err != nil {
		return err
	}
	var objects CallsObjects
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return err
	}
	defer objects.Close()
	attached, err := link.Tracepoint("syscalls", "sys_enter_getppid", objects.Count, nil)
	if err != nil {
		return err
	}
	defer attached.Close()
	for range calls {
		syscall.Getppid()
	}
	var counted uint64
	if err := objects.Calls.Lookup(uint32(0), &counted); err != nil {
		return err
	}
	if counted != calls {
		return fmt.Errorf("counted %d of %d calls", counted, calls)
	}
	return nil
}

func main() {
	if len(os.Args) != 2 || os.Args[1] != "--self-test" {
		os.Exit(2)
	}
	if err := selfTest(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

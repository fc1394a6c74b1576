package main

import (
	"strings"

	"github.com/cilium/ebpf"
)

// The names of enum bpf_prog_type (linux/bpf.h) in its order: the library's own differ from them (SchedCLS).
var programTypes = [...]string{
	"unspec", "socket_filter", "kprobe", "sched_cls", "sched_act", "tracepoint", "xdp", "perf_event", "cgroup_skb",
	"cgroup_sock", "lwt_in", "lwt_out", "lwt_xmit", "sock_ops", "sk_skb", "cgroup_device", "sk_msg",
	"raw_tracepoint", "cgroup_sock_addr", "lwt_seg6local", "lirc_mode2", "sk_reuseport", "flow_dissector",
	"cgroup_sysctl", "raw_tracepoint_writable", "cgroup_sockopt", "tracing", "struct_ops", "ext", "lsm",
	"sk_lookup", "syscall", "netfilter",
}

// programType returns the kernel's name of a type, and the library's for one that is newer than this list.
func programType(kind ebpf.ProgramType) string {
	if int(kind) < len(programTypes) {
		return programTypes[kind]
	}
	return strings.ToLower(kind.String())
}

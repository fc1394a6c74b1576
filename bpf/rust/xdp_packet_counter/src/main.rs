// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
//! Counts every frame an interface receives, and passes it on: packets, bytes, IPv4, IPv6.
//!
//! The same program as `bpf/xdp_packet_counter.bpf.c`, for the same tests: its names, its map and its struct are
//! those of the C source, which says why the section is "xdp".
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    btf_maps::PerCpuArray,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86DD;

/// One per CPU; a reader adds them up. The map's value type, so the object's BTF has it, under this name.
#[repr(C)]
struct xdp_counters {
    packets: u64,
    /// as on the wire: with the Ethernet header and any tag, without the checksum the card strips
    bytes: u64,
    /// frames whose own EtherType says so: a tagged frame is neither
    ipv4: u64,
    ipv6: u64,
}

#[repr(C)]
struct Ethernet {
    destination: [u8; 6],
    source: [u8; 6],
    ethertype: u16,
}

#[btf_map(name = "counters")]
static COUNTERS: PerCpuArray<xdp_counters, 1> = PerCpuArray::new();

#[xdp]
fn xdp_packet_counter(ctx: XdpContext) -> u32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    // never None: the array has this one entry
    let Some(counters) = COUNTERS.get_ptr_mut(0) else {
        return XDP_PASS;
    };
    // SAFETY: the entry is this processor's own, and nothing else refers to it while the program runs
    let counters = unsafe { &mut *counters };

    counters.packets += 1;
    counters.bytes += (end - data) as u64;
    if data + size_of::<Ethernet>() > end {
        return XDP_PASS;
    }
    // SAFETY: the frame has all of the header, as just checked; no field needs an alignment of more than 2
    let frame = unsafe { &*(data as *const Ethernet) };
    match u16::from_be(frame.ethertype) {
        ETH_P_IP => counters.ipv4 += 1,
        ETH_P_IPV6 => counters.ipv6 += 1,
        _ => {}
    }
    XDP_PASS
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual BSD/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

//! The kernel's side of the three programs, loaded as aya's users load them:
//!
//!     EBPF_OBJECTS=build cargo test --test test_ebpf_kernel_integration -- --nocapture
//!
//! runs on this machine's kernel, as root; the matrix runs the same binary in every guest.

use std::ffi::CStr;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::{KProbe, TracePoint, Xdp, XdpMode};
use aya::{Ebpf, Pod};

/// `struct xdp_counters` of `xdp_packet_counter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counters {
    packets: u64,
    bytes: u64,
    ipv4: u64,
    ipv6: u64,
}

// SAFETY: four integers, without padding
unsafe impl Pod for Counters {}

/// `struct exec_event` of `kprobe_execve.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ExecEvent {
    timestamp: u64,
    pid: u32,
    tgid: u32,
    uid: u32,
    gid: u32,
    ppid: u32,
    entry: u32,
    directory: i32,
    filename_length: i32,
    comm: [u8; 16],
    filename: [u8; 256],
}

/// `struct net_event` of `tracepoint_network.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct NetEvent {
    timestamp: u64,
    result: i64,
    bytes: u64,
    pid: u32,
    tgid: u32,
    uid: u32,
    fd: i32,
    kind: u32,
    state: u32,
    call: u32,
    family: u32,
    peer_family: u32,
    peer_port: u32,
    peer_address: [u8; 16],
    comm: [u8; 16],
}

const EXEC_ENTRY_EXECVE: u32 = 1;
const NET_CONNECT: u32 = 1;
const NET_DONE: u32 = 0;
const NET_FAILED: u32 = 1;

/// Ethernet, IPv4 without options, UDP.
const HEADERS: u64 = 14 + 20 + 8;

fn load(object: &str) -> Ebpf {
    let folder = std::env::var_os("EBPF_OBJECTS").expect("EBPF_OBJECTS is the folder of the objects");
    let path = PathBuf::from(folder).join(format!("{object}.bpf.o"));
    // kernels before 5.11 count maps and programs in it
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: setrlimit reads the struct
    check(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) });
    Ebpf::load_file(&path).unwrap_or_else(|error| panic!("{}: {error:?}", path.display()))
}

#[track_caller]
fn check(result: libc::c_int) {
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
}

/// Move this test's thread into a network namespace of its own, whose loopback has no other traffic.
fn enter_namespace() {
    // SAFETY: unshare takes a number
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) });
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    assert!(status.expect("ip runs").success());
}

fn counters(ebpf: &Ebpf) -> Counters {
    let map = PerCpuArray::<_, Counters>::try_from(ebpf.map("counters").expect("the map")).expect("its type");
    let values = map.get(&0, 0).expect("its only entry");
    values.iter().fold(Counters::default(), |sum, value| Counters {
        packets: sum.packets + value.packets,
        bytes: sum.bytes + value.bytes,
        ipv4: sum.ipv4 + value.ipv4,
        ipv6: sum.ipv6 + value.ipv6,
    })
}

fn ring_buffer(ebpf: &mut Ebpf) -> RingBuf<MapData> {
    RingBuf::try_from(ebpf.take_map("events").expect("the map")).expect("its type")
}

/// Return the records of a ring buffer, each as its struct.
fn records<T: Copy>(ring: &mut RingBuf<MapData>) -> Vec<T> {
    let mut records = Vec::new();
    while let Some(record) = ring.next() {
        assert_eq!(record.len(), size_of::<T>(), "a record is one event");
        // SAFETY: both structs consist of integers, and the record has their size
        records.push(unsafe { record.as_ptr().cast::<T>().read_unaligned() });
    }
    records
}

/// Return the text before the first NUL.
fn text(bytes: &[u8]) -> String {
    let text = CStr::from_bytes_until_nul(bytes).expect("a NUL at its end");
    text.to_str().expect("ASCII").to_owned()
}

/// Return the name of this thread, as the kernel has it.
fn own_comm() -> String {
    let comm = std::fs::read_to_string("/proc/thread-self/comm").expect("proc is mounted");
    comm.trim_end().to_owned()
}

/// Return `CLOCK_MONOTONIC` in nanoseconds.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes the struct
    check(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) });
    u64::try_from(time.tv_sec).expect("positive") * 1_000_000_000 + u64::try_from(time.tv_nsec).expect("positive")
}

fn attach_counter(ebpf: &mut Ebpf) {
    let program: &mut Xdp = ebpf
        .program_mut("xdp_packet_counter")
        .expect("the program")
        .try_into()
        .expect("its type");
    program.load().expect("the verifier takes it");
    program.attach("lo", XdpMode::default()).expect("lo takes it");
}

/// Send datagrams over loopback, and receive each: the counter has seen what a socket has received.
fn exchange(lengths: &[usize]) {
    let receiver = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    for length in lengths {
        let sent = sender.send_to(&vec![0; *length], receiver.local_addr().expect("bound"));
        assert_eq!(sent.expect("sent"), *length);
        assert_eq!(receiver.recv(&mut [0; 2048]).expect("received"), *length);
    }
}

#[test]
fn xdp_counts_every_datagram_on_lo() {
    enter_namespace();
    let mut ebpf = load("xdp_packet_counter");
    attach_counter(&mut ebpf);
    assert_eq!(counters(&ebpf), Counters::default());
    let lengths = [0, 1, 100, 1000];
    exchange(&lengths);
    let counted = counters(&ebpf);
    println!("xdp_packet_counter: {counted:?}");
    let expected = Counters {
        packets: 4,
        bytes: 4 * HEADERS + 1101,
        ipv4: 4,
        ipv6: 0,
    };
    assert_eq!(counted, expected);
}

#[test]
fn xdp_counts_nothing_before_it_is_attached() {
    enter_namespace();
    let mut ebpf = load("xdp_packet_counter");
    exchange(&[100]);
    assert_eq!(counters(&ebpf), Counters::default());
    attach_counter(&mut ebpf);
    exchange(&[100]);
    assert_eq!((counters(&ebpf).packets, counters(&ebpf).bytes), (1, HEADERS + 100));
}

#[test]
fn execve_is_one_event() {
    let mut ebpf = load("kprobe_execve");
    let mut ring = ring_buffer(&mut ebpf);
    let program: &mut KProbe = ebpf
        .program_mut("trace_execve")
        .expect("the program")
        .try_into()
        .expect("its type");
    program.load().expect("the verifier takes it");
    program.attach("__x64_sys_execve", 0).expect("the symbol exists");
    let before = now();
    let mut child = Command::new("/bin/true").spawn().expect("it starts");
    let pid = child.id();
    assert!(child.wait().expect("it ends").success());
    let after = now();
    let events: Vec<ExecEvent> = records(&mut ring);
    // others on this machine may exec, too
    let [event] = events.into_iter().filter(|event| event.tgid == pid).collect::<Vec<_>>()[..] else {
        panic!("not one event of process {pid}");
    };
    println!("trace_execve: {} by {}", text(&event.filename), text(&event.comm));
    assert_eq!((event.pid, event.uid, event.gid), (pid, 0, 0));
    assert_eq!(event.ppid, std::process::id());
    assert_eq!((event.entry, event.directory), (EXEC_ENTRY_EXECVE, libc::AT_FDCWD));
    // with its NUL
    assert_eq!(
        (text(&event.filename).as_str(), event.filename_length),
        ("/bin/true", 10)
    );
    assert_eq!(text(&event.comm), own_comm(), "of the caller, before the call");
    assert!((before..=after).contains(&event.timestamp));
}

/// Attach both ends of connect, and return its events while the block runs.
fn connects(block: impl FnOnce()) -> Vec<NetEvent> {
    let mut ebpf = load("tracepoint_network");
    let mut ring = ring_buffer(&mut ebpf);
    for end in ["enter", "exit"] {
        let program: &mut TracePoint = ebpf
            .program_mut(&format!("trace_connect_{end}"))
            .expect("the program")
            .try_into()
            .expect("its type");
        program.load().expect("the verifier takes it");
        program
            .attach("syscalls", &format!("sys_{end}_connect"))
            .expect("the tracepoint exists");
    }
    let before = now();
    block();
    let after = now();
    let own = std::process::id();
    let events: Vec<NetEvent> = records(&mut ring);
    let events: Vec<_> = events.into_iter().filter(|event| event.tgid == own).collect();
    for event in &events {
        println!("connect: result {}, family {}", event.result, event.family);
        assert!((before..=after).contains(&event.timestamp));
        assert_eq!((event.uid, event.kind, event.bytes), (0, NET_CONNECT, 0));
        assert_eq!(i64::from(event.call), libc::SYS_connect);
        assert_eq!(text(&event.comm), own_comm());
        // SAFETY: gettid takes nothing
        assert_eq!(event.pid, unsafe { libc::gettid() }.cast_unsigned());
    }
    events
}

#[test]
fn connect_is_one_event() {
    enter_namespace();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let mut fd = -1;
    let events = connects(|| {
        fd = TcpStream::connect(address).expect("someone listens").as_raw_fd();
    });
    let [event] = events[..] else {
        panic!("{} events of one connect", events.len());
    };
    assert_eq!((event.result, event.state, event.fd), (0, NET_DONE, fd));
    assert_eq!(event.family, libc::AF_INET.cast_unsigned());
    assert_eq!(event.peer_family, libc::AF_INET.cast_unsigned());
    assert_eq!(event.peer_port, u32::from(address.port()));
    assert_eq!(event.peer_address[..4], Ipv4Addr::LOCALHOST.octets());
    assert_eq!(event.peer_address[4..], [0; 12]);
}

#[test]
fn a_refused_connect_is_one_event_with_its_errno() {
    let events = connects(|| {
        let error = UnixStream::connect("/no/such/socket").expect_err("nobody listens");
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    });
    let [event] = events[..] else {
        panic!("{} events of one connect", events.len());
    };
    assert_eq!((event.result, event.state), (-i64::from(libc::ENOENT), NET_FAILED));
    assert_eq!(event.family, libc::AF_UNIX.cast_unsigned());
    assert_eq!((event.peer_family, event.peer_port), (libc::AF_UNIX.cast_unsigned(), 0));
    assert_eq!(event.peer_address, [0; 16]);
}

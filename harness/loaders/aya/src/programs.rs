//! Programs: what the kernel calls their types, and how each type is loaded, attached, run and detached.

use aya::programs::kprobe::KProbeLinkId;
use aya::programs::trace_point::TracePointLinkId;
use aya::programs::xdp::XdpLinkId;
use aya::programs::{KProbe, Program, ProgramError, TestRun, TestRunOptions, TracePoint, Xdp, XdpMode};

use crate::failure::{Failure, Stage};
use crate::netns::{Inside, Namespace};
use crate::protocol::{Interface, Mode, Target, Tracepoint};

/// Room for what a program puts before or behind a packet in a test run, in bytes.
const GROWTH: usize = 256;

/// An attached program.
#[derive(Debug)]
pub(crate) struct Attachment {
    link: LinkId,
    /// where it is detached, None: in the own one
    namespace: Option<Namespace>,
}

#[derive(Debug)]
enum LinkId {
    Kprobe(KProbeLinkId),
    Tracepoint(TracePointLinkId),
    Xdp(XdpLinkId),
}

/// Return the kernel's name of a program's type (`BPF_PROG_TYPE_...`), in lower case.
pub(crate) fn type_name(program: &Program) -> &'static str {
    match program {
        Program::KProbe(_) | Program::UProbe(_) => "kprobe",
        Program::TracePoint(_) => "tracepoint",
        Program::SocketFilter(_) | Program::ReusePortSocketFilter(_) => "socket_filter",
        Program::Xdp(_) => "xdp",
        Program::SkMsg(_) => "sk_msg",
        Program::SkSkb(_) => "sk_skb",
        Program::CgroupSockAddr(_) => "cgroup_sock_addr",
        Program::SockOps(_) => "sock_ops",
        Program::SchedClassifier(_) => "sched_cls",
        Program::CgroupSkb(_) => "cgroup_skb",
        Program::CgroupSysctl(_) => "cgroup_sysctl",
        Program::CgroupSockopt(_) => "cgroup_sockopt",
        Program::LircMode2(_) => "lirc_mode2",
        Program::PerfEvent(_) => "perf_event",
        Program::RawTracePoint(_) => "raw_tracepoint",
        Program::Lsm(_) | Program::LsmCgroup(_) => "lsm",
        Program::BtfTracePoint(_) | Program::FEntry(_) | Program::FExit(_) | Program::Iter(_) => "tracing",
        Program::FlowDissector(_) => "flow_dissector",
        Program::Extension(_) => "ext",
        Program::SkLookup(_) => "sk_lookup",
        Program::SkReuseport(_) => "sk_reuseport",
        Program::CgroupSock(_) => "cgroup_sock",
        Program::CgroupDevice(_) => "cgroup_device",
    }
}

pub(crate) fn is_loaded(program: &Program) -> bool {
    program.fd().is_ok()
}

/// Load a program of a type that needs nothing else for it.
pub(crate) fn load(name: &str, program: &mut Program) -> Result<(), Failure> {
    let loaded = match program {
        Program::KProbe(program) => program.load(),
        Program::UProbe(program) => program.load(),
        Program::TracePoint(program) => program.load(),
        Program::SocketFilter(program) => program.load(),
        Program::ReusePortSocketFilter(program) => program.load(),
        Program::Xdp(program) => program.load(),
        Program::SkMsg(program) => program.load(),
        Program::SkSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSysctl(program) => program.load(),
        Program::CgroupSockopt(program) => program.load(),
        Program::LircMode2(program) => program.load(),
        Program::PerfEvent(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::FlowDissector(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        Program::SkReuseport(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        Program::CgroupDevice(program) => program.load(),
        Program::Lsm(_)
        | Program::LsmCgroup(_)
        | Program::BtfTracePoint(_)
        | Program::FEntry(_)
        | Program::FExit(_)
        | Program::Iter(_)
        | Program::Extension(_) => {
            let why = format!(
                "aya loads a program of type {} for a target, which a load has not",
                type_name(program)
            );
            return Err(Failure::refused(Stage::Load, name, why));
        }
    };
    loaded.map_err(|error| Failure::of(Stage::Load, name, &error))
}

/// Attach a program with aya's call and defaults for the kind of target.
pub(crate) fn attach(name: &str, program: &mut Program, target: &Target) -> Result<Attachment, Failure> {
    let namespace = match target {
        Target::Xdp(Interface { netns: Some(path), .. }) => {
            Some(Namespace::open(path).map_err(|error| Failure::of(Stage::Attach, path, &error))?)
        }
        _ => None,
    };
    let _inside = enter(namespace.as_ref(), Stage::Attach)?;
    let link = link(program, target).map_err(|error| Failure::of(Stage::Attach, name, &error))?;
    Ok(Attachment { link, namespace })
}

/// Enter a namespace until the result is dropped; None is the own one.
fn enter(namespace: Option<&Namespace>, stage: Stage) -> Result<Option<Inside>, Failure> {
    namespace
        .map(|namespace| {
            namespace
                .enter()
                .map_err(|error| Failure::of(stage, &*namespace.path, &error))
        })
        .transpose()
}

fn link(program: &mut Program, target: &Target) -> Result<LinkId, ProgramError> {
    match target {
        Target::Kprobe(symbol) => <&mut KProbe>::try_from(program)?.attach(symbol, 0).map(LinkId::Kprobe),
        Target::Tracepoint(Tracepoint { category, name }) => <&mut TracePoint>::try_from(program)?
            .attach(category, name)
            .map(LinkId::Tracepoint),
        Target::Xdp(Interface { ifindex, mode, .. }) => {
            let mode = match mode {
                Mode::Default => XdpMode::default(),
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            };
            <&mut Xdp>::try_from(program)?
                .attach_to_if_index(*ifindex, mode)
                .map(LinkId::Xdp)
        }
    }
}

/// Detach a program; the attachment is gone even where that is refused.
pub(crate) fn detach(name: &str, program: &mut Program, attachment: Attachment) -> Result<(), Failure> {
    let Attachment { link, namespace } = attachment;
    let _inside = enter(namespace.as_ref(), Stage::Detach)?;
    unlink(program, link).map_err(|error| Failure::of(Stage::Detach, name, &error))
}

fn unlink(program: &mut Program, link: LinkId) -> Result<(), ProgramError> {
    match link {
        LinkId::Kprobe(link) => <&mut KProbe>::try_from(program)?.detach(link),
        LinkId::Tracepoint(link) => <&mut TracePoint>::try_from(program)?.detach(link),
        LinkId::Xdp(link) => <&mut Xdp>::try_from(program)?.detach(link),
    }
}

/// Run a program on data without attaching it; return its verdict and what is left of the data.
pub(crate) fn test_run(name: &str, program: &Program, data: &[u8]) -> Result<(u32, Vec<u8>), Failure> {
    let mut left = vec![0; data.len() + GROWTH];
    let options = TestRunOptions {
        data_in: Some(data),
        data_out: Some(&mut left),
        ..TestRunOptions::new()
    };
    let run = match program {
        Program::SocketFilter(program) => program.test_run(options),
        Program::ReusePortSocketFilter(program) => program.test_run(options),
        Program::SchedClassifier(program) => program.test_run(options),
        Program::Xdp(program) => program.test_run(options),
        Program::CgroupSkb(program) => program.test_run(options),
        Program::FlowDissector(program) => program.test_run(options),
        _ => {
            let why = format!("aya does not run a program of type {} on data", type_name(program));
            return Err(Failure::refused(Stage::TestRun, name, why));
        }
    };
    let run = run.map_err(|error| Failure::of(Stage::TestRun, name, &error))?;
    left.truncate(run.data_size_out as usize);
    Ok((run.return_value, left))
}

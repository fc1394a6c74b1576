// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
use std::process::{ExitCode, id};

use aya::{EbpfLoader, include_bytes_aligned, maps::Array, programs::TracePoint};

const CALLS: u64 = 3;

fn self_test() -> Result<u64, Box<dyn std::error::Error>> {
    let object = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/calls.bpf.o"));
    let mut ebpf = EbpfLoader::new().override_global("watched", &id(), true).load(object)?;
    let program: &mut TracePoint = ebpf.program_mut("count").ok_or("no program")?.try_into()?;
    program.load()?;
    program.attach("syscalls", "sys_enter_getppid")?;
    for _ in 0..CALLS {
        // SAFETY: it has no argument and changes nothing
        unsafe { libc::getppid() };
    }
    let calls: Array<_, u64> = Array::try_from(ebpf.map("calls").ok_or("no map")?)?;
    Ok(calls.get(&0, 0)?)
}

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() != Some("--self-test") {
        return ExitCode::from(2);
    }
    match self_test() {
        Ok(CALLS) => ExitCode::SUCCESS,
        Ok(counted) => {
            println!("counted {counted} of {CALLS} calls");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("{error}");
            ExitCode::from(3)
        }
    }
}

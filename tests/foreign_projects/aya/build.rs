// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=bpf/calls.bpf.c");
    let object = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("calls.bpf.o");
    let include = format!("-idirafter/usr/include/{}-linux-gnu", env::consts::ARCH);
    let done = Command::new("clang")
        .args(["-target", "bpf", "-O2", "-g", "-Wall", &include, "-c", "bpf/calls.bpf.c", "-o"])
        .arg(&object)
        .status()
        .expect("clang");
    assert!(done.success());
}

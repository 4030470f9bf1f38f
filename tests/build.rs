//! Compiles the sources and sinks of packets of the benchmarks and of the flood.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

const PROGRAMS: [&str; 2] = ["bench", "flood"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut args: Vec<OsString> = ["-Wall", "-Werror"].map(OsString::from).into();
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let include = format!("/usr/include/{architecture}-linux-gnu");
    if Path::new(&include).join("asm/types.h").exists() {
        args.extend(["-idirafter".into(), include.into()]);
    }
    for program in PROGRAMS {
        let source = format!("src/bpf/{program}.bpf.c");
        println!("cargo:rerun-if-changed={source}");
        SkeletonBuilder::new()
            .source(&source)
            .clang_args(&args)
            .obj(out.join(format!("{program}.bpf.o")))
            .build()
            .unwrap_or_else(|error| panic!("cannot compile {source}: {error:#}"));
    }
}

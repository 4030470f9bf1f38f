//! Compiles the XDP program and turns the numbers of its shared header into Rust constants.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

const PROGRAM: &str = "src/bpf/xdp_redirect.bpf.c";
const SHARED: &str = "src/bpf/shared.h";

fn main() {
    println!("cargo:rerun-if-changed=src/bpf");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));

    SkeletonBuilder::new()
        .source(PROGRAM)
        .clang_args(clang_args())
        .build_and_generate(out.join("xdp_redirect.skel.rs"))
        .unwrap_or_else(|error| {
            panic!(
                "cannot compile {PROGRAM}: {error:#}\n\
                 (needs clang with its BPF target and the kernel's headers: \
                 apt install clang libelf-dev zlib1g-dev linux-libc-dev)"
            )
        });

    let header =
        fs::read_to_string(SHARED).unwrap_or_else(|error| panic!("cannot read {SHARED}: {error}"));
    fs::write(out.join("constants.rs"), constants(&header)).expect("OUT_DIR is writable");
}

/// Debian keeps <asm/types.h> in a directory for each architecture, where clang for the BPF target does not look.
fn clang_args() -> Vec<OsString> {
    let mut args: Vec<OsString> = ["-Wall", "-Wextra", "-Werror"].map(OsString::from).into();
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let include = format!("/usr/include/{architecture}-linux-gnu");
    if Path::new(&include).join("asm/types.h").exists() {
        args.push("-idirafter".into());
        args.push(include.into());
    }
    args
}

/// `#define ILB_NAME 123` becomes `pub const NAME: u32 = 123;`, with the number's comment where it has one.
fn constants(header: &str) -> String {
    let mut code = String::new();
    for line in header.lines() {
        let mut words = line.split_whitespace();
        let (Some("#define"), Some(name), Some(number)) =
            (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let (Some(name), Ok(number)) = (name.strip_prefix("ILB_"), number.parse::<u32>()) else {
            panic!("{SHARED}: `{line}` is not `#define ILB_NAME number`");
        };
        writeln!(
            code,
            "/// `ILB_{name}` of the shared header.\npub const {name}: u32 = {number};"
        )
        .expect("a String takes everything");
    }
    code
}

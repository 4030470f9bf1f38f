//! Steers the TCP packets to one address and port into an AF_XDP socket, and says what arrives.
//!
//! ```text
//! steer PIN-DIRECTORY INTERFACE auto|native|generic ADDRESS PORT
//! ```
//! Kill it, and its packets are dropped; start it again, and it takes over. The tests do that.

use std::env;
use std::error::Error;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::os::fd::AsRawFd as _;

use xdp_redirect::{LoadOptions, Mode, Redirect, Steering};
use xsk_rs::config::{BindFlags, LibxdpFlags, SocketConfig, UmemConfig};
use xsk_rs::{Socket, Umem};

/// Number of the only queue that is served.
const QUEUE: u32 = 0;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [pin_dir, interface, mode, address, port] = arguments.as_slice() else {
        return Err("usage: steer PIN-DIRECTORY INTERFACE auto|native|generic ADDRESS PORT".into());
    };
    let mode = match mode.as_str() {
        "auto" => Mode::Auto,
        "native" => Mode::Native,
        "generic" => Mode::Generic,
        other => return Err(format!("mode {other:?} is none of auto, native, generic").into()),
    };
    let port = port.parse()?;
    let mut steering = Steering::new();
    steering.add_destination(address.parse()?, 6, port, port)?;

    let options = LoadOptions {
        pin_dir: pin_dir.into(),
        max_addresses: 1024,
    };
    let mut redirect = Redirect::load(&options)?;
    redirect.apply(&steering)?;
    let attached = redirect.attach(interface, mode)?;

    let frames = NonZeroU32::new(64).ok_or("no frames")?;
    let (umem, mut descriptors) = Umem::new(UmemConfig::default(), frames, false)?;
    let config = SocketConfig::builder()
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(BindFlags::XDP_COPY)
        .build();
    // SAFETY: the UMEM is shared with no other socket.
    let (_tx, mut rx, rings) = unsafe { Socket::new(config, &umem, &interface.parse()?, QUEUE) }?;
    let (mut fill, _completion) = rings.ok_or("the socket has no fill ring")?;
    // SAFETY: the descriptors come from this UMEM, and nobody else uses their frames.
    unsafe { fill.produce(&descriptors) };
    redirect.set_socket(attached.ifindex, QUEUE, rx.fd().as_raw_fd())?;

    let mut out = std::io::stdout();
    let (mode, adopted) = (attached.mode_used, attached.adopted);
    writeln!(out, "attached {mode} adopted={adopted}")?;
    out.flush()?;
    let mut total = 0;
    loop {
        // SAFETY: the frames behind these descriptors are those that the fill ring was given.
        let count = unsafe { rx.poll_and_consume(&mut descriptors, 1000) }?;
        for descriptor in &descriptors[..count] {
            total += 1;
            // SAFETY: the kernel has filled this frame and handed it over.
            let length = unsafe { umem.data(descriptor) }.contents().len();
            writeln!(out, "received {total}: {length} bytes")?;
            out.flush()?;
        }
        // SAFETY: these frames have just been read and go back.
        unsafe { fill.produce(&descriptors[..count]) };
    }
}

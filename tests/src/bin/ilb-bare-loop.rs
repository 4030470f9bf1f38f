//! The bare AF_XDP loop: the rings of `ilb-fastpath`, its sockets, its frame books, its system calls, and no logic but
//! new MAC addresses. What ilb's forwarding rate is compared with.
//!
//! `ilb-bare-loop SETTINGS PINS VIP:PORT` sends every UDP packet for VIP:PORT from the first interface out of the second.

use std::net::SocketAddr;
use std::path::Path;

use arrayvec::ArrayVec;
use ilb_fastpath::frames::Place;
use ilb_fastpath::port::{BATCH, Plan};
use ilb_fastpath::ports::Ports;
use ilb_node::settings::Settings;
use xdp_redirect::{LoadOptions, Mode, Redirect, Steering};

/// Rounds without a packet before the loop sleeps, as in the fast path.
const QUIET_ROUNDS: u32 = 32;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [settings, pins, target] = &arguments[..] else {
        eprintln!("usage: ilb-bare-loop SETTINGS PINS VIP:PORT");
        std::process::exit(2);
    };
    let settings = Settings::load(Path::new(settings)).expect("settings");
    let target: SocketAddr = target.parse().expect("VIP:PORT");
    let names = &settings.fastpath.interfaces;
    let mut redirect = Redirect::load(&LoadOptions {
        pin_dir: pins.into(),
        ..LoadOptions::default()
    })
    .expect("the XDP program loads");
    let mut steering = Steering::new();
    steering
        .add_destination(target.ip(), 17, target.port(), target.port())
        .expect("a port");
    redirect.apply(&steering).expect("steering");
    let plans: Vec<Plan> = names
        .iter()
        .enumerate()
        .map(|(n, name)| Plan {
            interface: n as u8,
            name: name.clone(),
            queue: 0,
        })
        .collect();
    let mut ports = Ports::open(&plans, &settings.fastpath, 0, None).expect("sockets");
    for (plan, port) in plans.iter().zip(ports.iter()) {
        let ifindex = redirect
            .attach(&plan.name, Mode::Auto)
            .expect("attach")
            .ifindex;
        redirect.set_socket(ifindex, 0, port.fd()).expect("XSKMAP");
    }
    println!("ready");
    let mut quiet = 0;
    let mut batch: ArrayVec<_, BATCH> = ArrayVec::new();
    let mut waits: Vec<libc::pollfd> = ports
        .fds()
        .map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    loop {
        ports.reap();
        ports.refill();
        let mut received = 0;
        for socket in 0..ports.iter().count() {
            batch.clear();
            ports.receive(socket, &mut batch);
            for frame in &batch {
                // SAFETY: the frame was just received, so that it is ours; the slice ends before it goes on.
                let (bytes, start) = unsafe { ports.frame(frame) };
                let packet = &mut bytes[start..start + frame.lengths().data()];
                packet[..12].copy_from_slice(&[4, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1]);
                let length = packet.len();
                if !ports.post(1, *frame, length, Place::BATCH) {
                    ports.give_back(*frame, Place::BATCH);
                }
            }
            received += batch.len();
        }
        ports.send(|_, _| {});
        quiet = if received > 0 { 0 } else { quiet + 1 };
        if quiet > QUIET_ROUNDS {
            // SAFETY: the list has this length and lives through the call.
            unsafe { libc::poll(waits.as_mut_ptr(), waits.len() as libc::nfds_t, 100) };
        }
    }
}

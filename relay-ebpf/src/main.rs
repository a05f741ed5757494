//! Turnpike's XDP program: forwards the data of established TURN channels between clients and peers.
//!
//! *Decide, then mutate; a miss is a punt.* Every check comes before the first change to the packet, and until
//! then any doubt hands the packet, untouched, to the kernel and so to the userspace relay.
//!
//! `parse` tells what may be the relay's, `lookup` reads the maps, `decide` applies every rule and plans the
//! outgoing packet, `rewrite` writes it, `outcome` counts and ends what is not forwarded.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(internal_features, reason = "atomic_xadd: core has no AtomicU64::fetch_add on bpfel")]

mod decide;
mod lookup;
mod maps;
mod outcome;
mod packet;
mod parse;
mod rewrite;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use relay_common::outcome::Outcome;

use crate::{packet::Packet, parse::Arrival};

/// Entry point, attached to every interface the relay serves.
#[xdp(frags)]
fn turnpike(ctx: XdpContext) -> u32 {
    let mut packet = Packet::new(ctx);
    let Some(arrival) = parse::arrival(&packet) else { return XDP_PASS };
    match forward(&mut packet, &arrival) {
        Ok(verdict) => verdict,
        Err(outcome) => outcome::settle(&packet, &arrival, outcome),
    }
}

#[inline(always)]
fn forward(packet: &mut Packet, arrival: &Arrival) -> Result<u32, Outcome> {
    let plan = decide::decide(packet, arrival)?;
    // The last step that may fail, and it fails without a trace. Behind it there is no way back.
    if !packet.move_head(plan.head) {
        return Err(Outcome::Headroom);
    }
    Ok(match rewrite::rewrite(packet, &plan) {
        Some(()) => plan.verdict,
        None => outcome::drop_broken(),
    })
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel offers GPL-only helpers to programs that say so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

//! Turnpike's XDP program: forwards the data of TURN allocations between clients and peers.
//!
//! *Decide, then mutate; a miss is a punt.* Every check comes before the first change to the packet, and until
//! then any doubt hands the packet, untouched, to the kernel and so to the userspace relay.
//!
//! `parse` tells what may be the relay's, `lookup` reads the maps, `decide` applies every rule and plans the
//! outgoing packet, `rewrite` writes it, `outcome` counts and ends what is not forwarded. `headers` and `indication` say
//! what packets look like, `key` what flows are found by.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch, core_intrinsics)]
#![expect(internal_features, reason = "atomic_xadd: core has no AtomicU64::fetch_add on bpfel")]

mod decide;
mod headers;
mod indication;
mod key;
mod lookup;
mod maps;
mod outcome;
mod packet;
mod parse;
mod rewrite;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use relay_common::{clock::BootNanos, outcome::Outcome};

use crate::{decide::Plan, packet::Packet};

const _: () = assert!(cfg!(target_endian = "little"), "headers are read in words of that order");

/// Entry point, attached to every interface the relay serves.
#[xdp(frags)]
fn turnpike(ctx: XdpContext) -> u32 {
    let mut packet = Packet::new(ctx);
    match forward(&mut packet) {
        Ok(verdict) => verdict,
        Err(outcome) => outcome::settle(&packet, outcome),
    }
}

#[inline(always)]
fn forward(packet: &mut Packet) -> Result<u32, Outcome> {
    let Some(link) = parse::link(packet) else { return Ok(XDP_PASS) };
    let Some(arrival) = parse::arrival(packet, &link) else { return Ok(XDP_PASS) };
    let received = parse::check(packet, &link, arrival)?;
    let relayed = decide::relay(packet, &received, lookup::now())?;
    let plan = decide::plan(packet, &received, &relayed)?;
    let has_room = make_room(packet, &plan)?;
    // Behind this there is no way back.
    if !has_room {
        return Ok(outcome::drop_moved(Outcome::Rewrite));
    }
    if !admitted(&plan, relayed.now) {
        return Ok(outcome::drop_moved(Outcome::Bandwidth));
    }
    Ok(match rewrite::rewrite(packet, &plan) {
        Some(()) => plan.verdict,
        None => outcome::drop_moved(Outcome::Rewrite),
    })
}

/// Moves both ends of the frame. The last step that may fail without a trace. False: the frame is neither what it was nor what
/// it was to be.
#[inline(always)]
fn make_room(packet: &mut Packet, plan: &Plan) -> Result<bool, Outcome> {
    let grows = plan.tail > 0;
    if grows && !packet.move_tail(plan.tail) {
        return move_data(packet, plan);
    }
    if !packet.move_head(plan.head) {
        return if grows && !packet.move_tail(-plan.tail) { Ok(false) } else { Err(Outcome::Headroom) };
    }
    Ok(plan.tail >= 0 || packet.move_tail(plan.tail))
}

/// Drivers leave room before a frame, but not always behind it: then the data moves towards the front.
#[inline(always)]
fn move_data(packet: &mut Packet, plan: &Plan) -> Result<bool, Outcome> {
    let len = plan.data_len as usize;
    let scratch = lookup::scratch().ok_or(Outcome::Tailroom)?;
    if len == 0 || len > size_of_val(scratch) || plan.further_len != 0 {
        return Err(Outcome::Tailroom);
    }
    if !packet.move_head(plan.head - plan.tail) {
        return Err(Outcome::Headroom);
    }
    let to = plan.data_at as u32;
    Ok(packet.copy(to + plan.tail as u32, to, len, scratch))
}

/// Whether the packet is within the limits of the allocations it concerns. It counts towards them then, so all else
/// that could keep it from being sent comes before.
#[inline(always)]
fn admitted(plan: &Plan, now: BootNanos) -> bool {
    let admit = |meter| lookup::admit(meter, now, plan.data_len);
    plan.sender.is_none_or(|sender| admit(sender.meter)) && admit(plan.account.meter)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// The kernel offers GPL-only helpers to programs that say so.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

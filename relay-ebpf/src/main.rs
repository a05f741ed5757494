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
#![expect(
    internal_features,
    reason = "atomic_xadd: core has no AtomicU64::fetch_add on bpfel; is_val_statically_known"
)]

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

use aya_ebpf::{
    bindings::{xdp_action::XDP_PASS, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use relay_common::{clock::BootNanos, outcome::Outcome, port_class::PortClass};

use crate::{
    decide::{ANY, COMMON, Case, Plan, UNCOMMON},
    headers::ether_type,
    packet::Packet,
    parse::{Link, Received},
};

const _: () = assert!(cfg!(target_endian = "little"), "headers are read in words of that order");

/// Entry point, attached to every interface the relay serves.
#[xdp(frags)]
fn turnpike(ctx: XdpContext) -> u32 {
    match common(ctx.ctx) {
        NOT_COMMON => any(ctx.ctx),
        verdict => verdict,
    }
}

/// No verdict: the packet is untouched, and nothing has been counted.
const NOT_COMMON: u32 = u32::MAX;

/// ChannelData in order, in whole frames without tags: nearly all there is. Out of the same source the compiler makes a
/// way of its own for it, which is short because all else is left out and offsets are numbers.
#[inline(never)]
fn common(ctx: *mut xdp_md) -> u32 {
    forward::<COMMON>(&mut Packet::new(XdpContext::new(ctx))).unwrap_or(NOT_COMMON)
}

/// Every packet. A function apart: the two have their stacks one after the other in the same place.
#[inline(never)]
fn any(ctx: *mut xdp_md) -> u32 {
    let mut packet = Packet::new(XdpContext::new(ctx));
    match forward::<ANY>(&mut packet) {
        Ok(verdict) => verdict,
        Err(outcome) => outcome::settle(&packet, outcome),
    }
}

#[inline(always)]
fn forward<const CASE: Case>(packet: &mut Packet) -> Result<u32, Outcome> {
    let Some(link) = parse::link::<CASE>(packet) else {
        return if CASE == ANY { Ok(XDP_PASS) } else { Err(UNCOMMON) };
    };
    match link.ether_type {
        _ if CASE == ANY => serve::<CASE>(packet, &link),
        // One for either family, and for either direction.
        ether_type::IPV4 => serve::<CASE>(packet, &link.of(ether_type::IPV4)),
        ether_type::IPV6 => serve::<CASE>(packet, &link.of(ether_type::IPV6)),
        _ => Err(UNCOMMON),
    }
}

#[inline(always)]
fn serve<const CASE: Case>(packet: &mut Packet, link: &Link) -> Result<u32, Outcome> {
    let Some(arrival) = parse::arrival(packet, link) else { return Ok(XDP_PASS) };
    let received = parse::check(packet, link, arrival)?;
    match received.class {
        _ if CASE == ANY => send_on::<CASE>(packet, &received),
        PortClass::Listener => send_on::<CASE>(packet, &received.of(PortClass::Listener)),
        _ => send_on::<CASE>(packet, &received.of(PortClass::Relayed)),
    }
}

#[inline(always)]
fn send_on<const CASE: Case>(packet: &mut Packet, received: &Received) -> Result<u32, Outcome> {
    let relayed = decide::relay::<CASE>(packet, received, lookup::now())?;
    let plan = decide::plan::<CASE>(packet, received, &relayed)?;
    match make_room::<CASE>(packet, &plan) {
        // Moved, and could not be moved back.
        Err(Outcome::Rewrite) => return Ok(outcome::drop_moved(Outcome::Rewrite)),
        made => made?,
    }
    // Behind this there is no way back.
    if !admitted(&plan, relayed.now) {
        return Ok(outcome::drop_moved(Outcome::Bandwidth));
    }
    Ok(match rewrite::rewrite(packet, &plan) {
        Some(()) => plan.verdict,
        None => outcome::drop_moved(Outcome::Rewrite),
    })
}

/// Moves both ends of the frame, and the data between them where its end will not move. Up to there it fails without a
/// trace.
#[inline(always)]
fn make_room<const CASE: Case>(packet: &mut Packet, plan: &Plan) -> Result<(), Outcome> {
    let grows = CASE == ANY && plan.tail > 0;
    if grows && !packet.move_tail(plan.tail) {
        return move_data(packet, plan);
    }
    if !packet.move_head(plan.head) {
        return if grows && !packet.move_tail(-plan.tail) {
            Err(Outcome::Rewrite)
        } else {
            Err(Outcome::Headroom)
        };
    }
    if plan.tail < 0 && !packet.move_tail(plan.tail) {
        return Err(Outcome::Rewrite);
    }
    Ok(())
}

/// Drivers leave room before a frame, but not always behind it: then the data moves towards the front.
#[inline(always)]
fn move_data(packet: &mut Packet, plan: &Plan) -> Result<(), Outcome> {
    let len = plan.data_len as usize;
    let scratch = lookup::scratch().ok_or(Outcome::Tailroom)?;
    if len == 0 || len > size_of_val(scratch) || plan.further_len != 0 {
        return Err(Outcome::Tailroom);
    }
    if !packet.move_head(plan.head - plan.tail) {
        return Err(Outcome::Headroom);
    }
    let to = plan.data_at as u32;
    if packet.copy(to + plan.tail as u32, to, len, scratch) { Ok(()) } else { Err(Outcome::Rewrite) }
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

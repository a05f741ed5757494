//! What the kernel says of the program's size, and what a packet costs. Only the size is judged: times depend on the machine
//! and are printed for whoever looks (`--nocapture`).
//!
//! Where a session can be made whose output is its next input ([`crate::loops`]), the kernel repeats the run, and a round of
//! many packets begins with the frame restored. Where none can, there is one packet for each test run, whose own share
//! is an empty program's measured in the same way.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use relay_user::turn::{ChannelNumber, Direction, Family, Flow, FlowForm, Hairpin, PeerAddr};

use crate::{
    case::{Case, Form},
    frame::{ETHER_TYPE_AT, Frame, set_word},
    loops::{CHANNEL, LONGEST, PingPong, flow, looping},
    message::{channel_data, send_indication},
    relay::*,
    session::{listener, on_peer_side},
};

/// The verifier gives up at a million; paths must not multiply.
const MOST_VERIFIED: u32 = 400_000;
/// What the kernel allows (MAX_BPF_STACK of include/linux/filter.h).
const MAX_STACK: usize = 512;
const ROUNDS: usize = 1001;
const LEN: usize = 160;

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn the_program_is_small_for_the_verifier() {
    let mut relay = Relay::without_flows();
    let info = relay.program_mut().info().unwrap();
    let verified = info.verified_instruction_count().unwrap();
    let stack = stack_depths(&translated(&mut relay));
    println!(
        "{verified} instructions verified, {} bytes translated, {} bytes of machine code, {stack:?} bytes of stack",
        info.size_translated().unwrap(),
        info.size_jitted()
    );
    assert!(verified <= MOST_VERIFIED, "{verified} instructions verified");
    // The entry calls one, then maybe the other.
    let [entry, called @ ..] = stack.as_slice() else { unreachable!("a program has an entry") };
    let deepest = called.iter().max().unwrap_or(&0);
    assert!(entry + deepest <= MAX_STACK, "{stack:?} bytes of stack");
}

#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn a_packet_costs_so_much_every_way() {
    let mut relay = Relay::without_flows();
    relay.attach();
    let empty = Empty::load(relay.ifindex(Side::Client));
    println!("an empty program: {} ns; once in a test run: {} ns", empty.cost(LONGEST), empty.cost(1));
    for (name, family, relayed) in [
        ("IPv4", Family::V4, Family::V4),
        ("IPv6", Family::V6, Family::V6),
        ("IPv4 to IPv6 and back", Family::V4, Family::V6),
        ("IPv6 to IPv4 and back", Family::V6, Family::V4),
    ] {
        println!("{name}:");
        if family == relayed {
            channel_data_to_peer(&mut relay, &empty, family);
            channel_data_to_client(&mut relay, &empty, family);
            send_indications(&mut relay, &empty, family);
            data_indications(&mut relay, &empty, family);
            hairpin(&mut relay, &empty, family);
        }
        both_ways(&mut relay, &empty, family, relayed);
    }
    let mut relay = Relay::new();
    relay.attach();
    println!("once in a test run, less what that takes:");
    for case in Case::hairpins()
        .chain(Case::to_peer())
        .filter(|case| case.families().iter().all(|&family| family == Family::V4))
    {
        let cost = once(&relay, &empty, case.ingress(), &case.input(&data(LEN)).bytes());
        println!("  {case:?}: {cost}");
    }
    let [case, _] = Case::ipv4(Form::ChannelData);
    let frame = case.input(&data(LEN));
    let mut arp = frame.bytes();
    set_word(&mut arp, ETHER_TYPE_AT, 0x0806);
    let mut other_port = frame.clone();
    other_port.destination.set_port(53);
    let unbound = Frame { payload: channel_data(0x4fff, &data(LEN)), ..frame };
    for (what, frame) in [
        ("not IP", arp),
        ("to a port that is not ours", other_port.bytes()),
        ("punted without a flow", unbound.bytes()),
    ] {
        let cost = median(|| relay.run_repeatedly(Side::Client, &frame, 1000).1);
        println!("{what}: {cost} ns");
    }
}

/// ChannelData in ChannelData in ChannelData: each run takes one header off and leaves a packet of the same client.
fn channel_data_to_peer(relay: &mut Relay, empty: &Empty, family: Family) {
    let (client, server) = (far(family, 1), listener(family));
    let form = bound(server);
    let to_peer = flow(Direction::ToPeer, [client, server], client, form);
    relay.add_loop(server, &[to_peer]);
    let repeat = 200;
    let payload = (0..repeat).fold(data(LEN), |data, _| channel_data(CHANNEL, &data));
    let frame = looping(Frame::new(client, server, payload));
    report(relay, empty, "ChannelData to peer", &to_peer, &frame, repeat);
}

/// Each run puts one header before the data and leaves a packet of the same peer, as long as there is room before it.
fn channel_data_to_client(relay: &mut Relay, empty: &Empty, family: Family) {
    let (peer, relayed) = (far(family, 2), far(family, 3));
    let to_client = flow(Direction::ToClient, [relayed, peer], relayed, bound(peer));
    relay.add_relayed(relayed);
    relay.add_loop(relayed, &[to_client]);
    let frame = looping(Frame::new(peer, relayed, data(LEN)));
    report(relay, empty, "peer to ChannelData", &to_client, &frame, Memory::HEADROOM as u32 / 4);
}

/// As ChannelData to the peer.
fn send_indications(relay: &mut Relay, empty: &Empty, family: Family) {
    let (client, server) = (far(family, 4), listener(family));
    let permitted = FlowForm::Permission { peer: server.ip() };
    let to_peer = flow(Direction::ToPeer, [client, server], client, permitted);
    let allocation = flow(Direction::ToPeer, [client, server], client, FlowForm::Allocation);
    relay.add_loop(server, &[allocation, to_peer]);
    let repeat = 50;
    let payload = (0..repeat).fold(data(LEN), |data, _| send_indication(server, &data));
    let frame = looping(Frame::new(client, server, payload));
    report(relay, empty, "Send indication to peer", &to_peer, &frame, repeat);
}

/// As ChannelData to the client. There is room for few.
fn data_indications(relay: &mut Relay, empty: &Empty, family: Family) {
    let (peer, relayed) = (far(family, 5), far(family, 6));
    let permitted = FlowForm::Permission { peer: peer.ip() };
    let to_client = flow(Direction::ToClient, [relayed, peer], relayed, permitted);
    relay.add_relayed(relayed);
    relay.add_loop(relayed, &[to_client]);
    let frame = looping(Frame::new(peer, relayed, data(LEN)));
    let header_len = send_indication(peer, b"").len();
    report(
        relay,
        empty,
        "peer to Data indication",
        &to_client,
        &frame,
        (Memory::HEADROOM / header_len) as u32,
    );
}

/// Two allocations of clients that are the server itself, with the same channel: what leaves is what came.
fn hairpin(relay: &mut Relay, empty: &Empty, family: Family) {
    let client = listener(family);
    let [one, other] = [far(family, 7), far(family, 8)];
    let hairpin = Some(Hairpin { advertised: one.ip(), alias: None });
    let to_peer = Flow { hairpin, ..flow(Direction::ToPeer, [client, client], one, bound(other)) };
    let to_client = Flow { hairpin, ..flow(Direction::ToClient, [client, client], other, bound(one)) };
    relay.add_loop(client, &[to_peer, to_client]);
    let frame = looping(Frame::new(client, client, channel_data(CHANNEL, &data(LEN))));
    report(relay, empty, "hairpin of ChannelData", &to_client, &frame, LONGEST);
}

/// ChannelData out and back, in turn.
fn both_ways(relay: &mut Relay, empty: &Empty, family: Family, relayed: Family) {
    let session = PingPong::new(family, relayed, 20 + 2 * family as u8 + relayed as u8);
    let [to_peer, _] = relay.add_ping_pong(&session, CHANNEL);
    let frame = session.frame(CHANNEL, &data(LEN));
    report(relay, empty, "ChannelData out and back, the mean of both", &to_peer, &frame, LONGEST);
}

fn report(relay: &mut Relay, empty: &Empty, what: &str, flow: &Flow, frame: &Frame, repeat: u32) {
    let before = relay.counted(flow);
    let cost = median(|| relay.run_repeatedly(Side::Client, &frame.bytes(), repeat).1);
    let packets = relay.counted(flow).0 - before.0;
    let per_round = packets / ROUNDS as u64;
    assert!(
        per_round == u64::from(repeat) || per_round * 2 == u64::from(repeat),
        "{what}: {per_round} of {repeat}"
    );
    println!(
        "  {what}: {cost} ns ({} ns less what a test run of {repeat} adds)",
        cost - empty.overhead(repeat)
    );
}

/// In nanoseconds.
fn once(relay: &Relay, empty: &Empty, side: Side, frame: &[u8]) -> String {
    let verdict = relay.run(side, frame).verdict;
    assert!([XDP_TX, XDP_REDIRECT].contains(&verdict), "verdict {verdict}");
    let cost = median(|| relay.run_repeatedly(side, frame, 1).1);
    format!("{} ns", cost - empty.overhead(1))
}

fn median(mut run: impl FnMut() -> u128) -> i128 {
    let mut costs: Vec<_> = (0..ROUNDS).map(|_| run()).collect();
    costs.sort_unstable();
    costs[ROUNDS / 2] as i128
}

/// Address number `number` of this test, neither a client's nor a peer's of others.
const fn far(family: Family, number: u8) -> SocketAddr {
    SocketAddr::new(on_peer_side(family, 200 + number), 50200 + 2 * number as u16)
}

const fn bound(peer: SocketAddr) -> FlowForm {
    let number = ChannelNumber::new(CHANNEL).expect("0x4000 to 0x4fff");
    FlowForm::Channel { peer: PeerAddr(peer), number }
}

/// A program that passes everything, attached for the same reason as the other one.
struct Empty {
    program: OwnedFd,
    _link: OwnedFd,
    /// Nanoseconds of one of many runs.
    of_many: i128,
}

impl Empty {
    fn load(ifindex: u32) -> Self {
        #[repr(C)]
        struct Load {
            prog_type: u32,
            insn_cnt: u32,
            insns: u64,
            license: u64,
            log_level: u32,
            log_size: u32,
            log_buf: u64,
            kern_version: u32,
            prog_flags: u32,
        }
        const BPF_PROG_LOAD: libc::c_int = 5;
        const BPF_PROG_TYPE_XDP: u32 = 6;
        // r0 = XDP_PASS; exit
        let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];
        let license = c"GPL";
        let mut load = Load {
            prog_type: BPF_PROG_TYPE_XDP,
            insn_cnt: instructions.len() as u32,
            insns: instructions.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
        };
        // SAFETY: the attributes are this command's; what they point to lives until it returns.
        let fd = unsafe { bpf(BPF_PROG_LOAD, &mut load) };
        // SAFETY: a descriptor just made, of nobody else.
        let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        #[repr(C)]
        struct Link {
            prog_fd: u32,
            target_ifindex: u32,
            attach_type: u32,
            flags: u32,
        }
        const BPF_LINK_CREATE: libc::c_int = 28;
        const BPF_XDP: u32 = 37;
        const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
        let mut link = Link {
            prog_fd: program.as_raw_fd() as u32,
            target_ifindex: ifindex,
            attach_type: BPF_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        // SAFETY: the attributes are this command's.
        let fd = unsafe { bpf(BPF_LINK_CREATE, &mut link) };
        // SAFETY: a descriptor just made, of nobody else.
        let link = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let mut empty = Self { program, _link: link, of_many: 0 };
        empty.of_many = empty.cost(100_000);
        empty
    }

    /// Nanoseconds of one run of so many.
    fn cost(&self, repeat: u32) -> i128 {
        #[repr(C)]
        struct TestRun {
            prog_fd: u32,
            retval: u32,
            data_size_in: u32,
            data_size_out: u32,
            data_in: u64,
            data_out: u64,
            repeat: u32,
            duration: u32,
        }
        const BPF_PROG_TEST_RUN: libc::c_int = 10;
        let frame = [0u8; LEN];
        median(|| {
            let mut run = TestRun {
                prog_fd: self.program.as_raw_fd() as u32,
                retval: 0,
                data_size_in: frame.len() as u32,
                data_size_out: 0,
                data_in: frame.as_ptr() as u64,
                data_out: 0,
                repeat,
                duration: 0,
            };
            // SAFETY: the attributes are this command's; what they point to lives until it returns.
            unsafe { bpf(BPF_PROG_TEST_RUN, &mut run) };
            u128::from(run.duration)
        })
    }

    /// What one of so many runs takes more than one of many: the share of what a test run takes beside its runs.
    fn overhead(&self, repeat: u32) -> i128 {
        self.cost(repeat) - self.of_many
    }
}

/// The program's instructions as the kernel runs or compiles them.
fn translated(relay: &mut Relay) -> Vec<[u8; 8]> {
    #[repr(C)]
    struct ObjectInfo {
        bpf_fd: u32,
        info_len: u32,
        info: u64,
    }
    /// The beginning of `struct bpf_prog_info`.
    #[repr(C)]
    struct ProgramInfo {
        prog_type: u32,
        id: u32,
        tag: [u8; 8],
        jited_prog_len: u32,
        xlated_prog_len: u32,
        jited_prog_insns: u64,
        xlated_prog_insns: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    let program = relay.program_mut();
    let len = program.info().unwrap().size_translated().unwrap();
    let mut instructions = vec![[0; 8]; len as usize / 8];
    let mut info = ProgramInfo {
        prog_type: 0,
        id: 0,
        tag: [0; 8],
        jited_prog_len: 0,
        xlated_prog_len: len,
        jited_prog_insns: 0,
        xlated_prog_insns: instructions.as_mut_ptr() as u64,
    };
    let mut object = ObjectInfo {
        bpf_fd: program.fd().unwrap().as_fd().as_raw_fd() as u32,
        info_len: size_of::<ProgramInfo>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attributes are this command's; what they point to lives until it returns and has the size given.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut object) };
    instructions
}

/// Bytes of stack that each function uses: how far below the frame pointer (r10) it goes. (The verifier tells it in its log
/// alone, which the loader does not keep.)
fn stack_depths(instructions: &[[u8; 8]]) -> Vec<usize> {
    const CALL: u8 = 0x85;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const LOAD: u8 = 1;
    const STORES: [u8; 2] = [2, 3];
    let fields = |instruction: &[u8; 8]| {
        let [code, registers, offset @ .., a, b, c, d] = *instruction;
        (code, registers & 15, registers >> 4, i16::from_le_bytes(offset), i32::from_le_bytes([a, b, c, d]))
    };
    let mut begins = vec![0];
    let mut below = vec![0; instructions.len()];
    let mut previous = (0, 0, 0, 0, 0);
    for (at, instruction) in instructions.iter().enumerate() {
        let (code, to, from, offset, immediate) = fields(instruction);
        if code == CALL && from == 1 {
            begins.push((at as i64 + 1 + i64::from(offset)) as usize);
        }
        below[at] = match (code & 7, code) {
            (LOAD, _) if from == 10 => -i64::from(offset),
            (class, _) if STORES.contains(&class) && to == 10 => -i64::from(offset),
            (_, ADD) if (previous.0, previous.1, previous.2) == (MOVE, to, 10) => -i64::from(immediate),
            _ => 0,
        };
        previous = (code, to, from, offset, immediate);
    }
    begins.sort_unstable();
    begins.dedup();
    let ends = begins.iter().skip(1).copied().chain([instructions.len()]);
    begins
        .iter()
        .zip(ends)
        .map(|(&begin, end)| below[begin..end].iter().copied().max().unwrap_or(0) as usize)
        .collect()
}

/// The system call.
///
/// # Safety
/// `attributes` must be those of `command`.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> libc::c_long {
    // SAFETY: the caller's promise.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>() as libc::c_ulong)
    };
    assert!(result >= 0, "bpf({command}): {}", io::Error::last_os_error());
    result
}

//! Sessions whose every outgoing packet is an incoming one again: the kernel repeats a run with the packet as the last
//! one left it, so that one test run carries many packets.

use std::net::SocketAddr;

use aya::{TestRun as _, TestRunOptions, programs::xdp::XdpMode};
use relay_user::{
    net::next_hop::NextHop,
    turn::{
        AllocationId, ChannelNumber, ClientAddr, Direction, Family, FiveTuple, Flow, FlowForm, FlowId,
        PeerAddr, RelayedAddr, ServerAddr, Transport,
    },
};

use crate::{
    frame::Frame,
    message::channel_data,
    relay::*,
    session::{FAR, listener, on_peer_side},
};

/// A TTL of 255 lasts for so many packets: one that would reach 0 is not forwarded.
pub const LONGEST: u32 = 254;

pub const CHANNEL: u16 = 0x4abc;

/// A client that is the server itself, with a relayed address that is its own peer: ChannelData goes out, and comes back
/// as ChannelData.
#[derive(Clone, Copy, Debug)]
pub struct PingPong {
    pub client: SocketAddr,
    pub relayed: SocketAddr,
}

impl PingPong {
    /// Session `number` between these families.
    pub const fn new(client: Family, relayed: Family, number: u8) -> Self {
        let relayed = SocketAddr::new(on_peer_side(relayed, 100 + number), 50100 + 2 * number as u16);
        Self { client: listener(client), relayed }
    }

    /// Both flows.
    pub fn flows(&self, number: u16) -> [Flow; 2] {
        [Direction::ToPeer, Direction::ToClient].map(|direction| self.flow(direction, number))
    }

    pub fn flow(&self, direction: Direction, number: u16) -> Flow {
        let number = ChannelNumber::new(number).expect("0x4000 to 0x4fff");
        let form = FlowForm::Channel { peer: PeerAddr(self.relayed), number };
        flow(direction, [self.client, self.client], self.relayed, form)
    }

    /// The packet to begin with.
    pub fn frame(&self, number: u16, data: &[u8]) -> Frame {
        looping(Frame::new(self.client, self.client, channel_data(number, data)))
    }
}

/// A flow of a client and a server.
pub fn flow(
    direction: Direction,
    [client, server]: [SocketAddr; 2],
    relayed: SocketAddr,
    form: FlowForm,
) -> Flow {
    let five_tuple =
        FiveTuple { client: ClientAddr(client), server: ServerAddr(server), transport: Transport::Udp };
    Flow {
        id: FlowId { direction, five_tuple, relayed: RelayedAddr(relayed), form },
        allocation: AllocationId(1),
        expires: FAR,
        hairpin: None,
        meter: None,
    }
}

/// A frame that is for the relay's interface by what its next hops say.
pub fn looping(frame: Frame) -> Frame {
    Frame { destination_mac: Side::Client.mac(), ttl: 255, ..frame }
}

impl Relay {
    /// Attaches the program to an interface, where nothing comes in. For a test run that repeats, the kernel patches its
    /// own code to call the program directly (the XDP dispatcher), unless it has done so for an attached one: that takes
    /// far longer than the run.
    pub fn attach(&mut self) {
        let ifindex = self.ifindex(Side::Peer);
        self.program_mut().attach_to_if_index(ifindex, XdpMode::Driver).expect("a veth device");
    }

    /// Has everything to this address leave by the interface that it comes in by, for that interface.
    pub fn loop_back(&mut self, destination: SocketAddr) {
        let next_hop = NextHop { mtu: 9000, ..self.next_hop(Side::Client, Side::Client.mac()) };
        self.set_next_hop(destination.ip(), Some(next_hop));
    }

    /// Installs flows that end where packets come in again.
    pub fn add_loop(&mut self, destination: SocketAddr, flows: &[Flow]) {
        self.loop_back(destination);
        for flow in flows {
            self.install(flow);
        }
    }

    /// Makes a session of packets that come back.
    pub fn add_ping_pong(&mut self, session: &PingPong, number: u16) -> [Flow; 2] {
        let flows = session.flows(number);
        self.add_relayed(session.relayed);
        self.add_loop(session.client, &flows);
        self.loop_back(session.relayed);
        flows
    }

    /// Runs the program `repeat` times on one frame, each time on what the last one left. Returns that, and the
    /// nanoseconds of one run.
    pub fn run_repeatedly(&self, side: Side, frame: &[u8], repeat: u32) -> (Run, u128) {
        let mut data_out = vec![0; frame.len() + 512];
        let context = self.context(Memory::default(), side, frame.len());
        let result = self
            .program()
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut data_out),
                ctx_in: Some(&context),
                repeat,
                ..TestRunOptions::default()
            })
            .expect("a test run");
        data_out.truncate(result.data_size_out as usize);
        (Run { verdict: result.return_value, frame: data_out }, result.duration.as_nanos())
    }
}

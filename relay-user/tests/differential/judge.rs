//! One packet through both paths, and whether they agree.

use std::{collections::HashSet, fmt::Write as _, net::SocketAddr};

use relay_common::{
    counter::FlowCounter,
    outcome::{Outcome, Verdict},
};
use relay_user::turn::{
    ClientAddr, Direction, FiveTuple, Flow, FlowForm, Output, PeerAddr, RelayedAddr, ServerAddr, Traffic,
    Transport,
};

use crate::{
    driver::Driver,
    expect,
    packet::Packet,
    program::{Outcomes, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX},
    reasons::{is_without_flows, not_to_hurry, not_to_send, of_lost},
    receive::{Came, Datagram, Endpoint, Ours, Reception, receive},
    tally::{Form, Forwarded, Judged},
    world::World,
};

/// What lasts from packet to packet.
#[derive(Default)]
pub struct Judge {
    frame: Vec<u8>,
    result: Vec<u8>,
    expected: Vec<u8>,
    sent: Vec<Output>,
    /// Transaction IDs of Data indications that the kernel made.
    transactions: HashSet<[u8; 12]>,
    /// What the program had counted before.
    outcomes: Outcomes,
    /// Look after each packet, and not after many, whether one that was forwarded was counted too.
    is_thorough: bool,
}

/// In what the two paths differ.
#[derive(Clone, Debug)]
pub struct Mismatch {
    pub text: String,
}

impl Mismatch {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

type Result<T> = std::result::Result<T, Mismatch>;

/// What the server did with a datagram.
struct Served {
    /// The application data that it relayed: which way, and how much.
    relayed: Option<(Direction, Traffic)>,
    hairpin: bool,
}

impl Judge {
    /// One that takes more time, and knows which packet it was.
    pub fn thorough() -> Self {
        Self { is_thorough: true, ..Self::default() }
    }

    /// To be called when a world begins.
    pub fn begin(&mut self, world: &mut World<'_>) {
        self.outcomes = world.driver.program.outcomes();
    }

    /// Nothing was counted but what was seen to be.
    pub fn end(&mut self, world: &mut World<'_>) -> Result<()> {
        let outcomes = world.driver.program.outcomes();
        if outcomes == self.outcomes {
            return Ok(());
        }
        let names = differences(&outcomes, &self.outcomes);
        Err(Mismatch::new(format!("packets that were forwarded were counted as {names:?} too")))
    }

    /// Gives a packet to both.
    pub fn judge(&mut self, world: &mut World<'_>, packet: &Packet) -> Result<Judged> {
        packet.write(&mut self.frame);
        let judged = self.judge_frame(world, packet)?;
        if judged == Judged::Stopped(Outcome::Torn) && world.driver.is_torn() {
            // The server was spared it: once the maps are whole again, it is a packet like any other.
            world.driver.mend();
            let result = self.judge_frame(world, packet);
            world.driver.spoil();
            if result? == Judged::Stopped(Outcome::Torn) {
                return Err(Mismatch::new("a whole entry is called torn"));
            }
        }
        Ok(judged)
    }

    fn judge_frame(&mut self, world: &mut World<'_>, packet: &Packet) -> Result<Judged> {
        let first_piece = world.driver.program.first_piece(packet, self.frame.len());
        let reception = receive(&self.frame, (packet.ingress, first_piece), world);
        let verdict = self.run(world, packet);
        if matches!(verdict, XDP_TX | XDP_REDIRECT) {
            if self.is_thorough {
                self.end(world)?;
            }
            return self.judge_forwarded(world, packet, &reception, verdict).map(Judged::Forwarded);
        }
        let outcomes = world.driver.program.outcomes();
        let counted = differences(&outcomes, &self.outcomes);
        self.judge_untouched(world, matches!(counted[..], [(Outcome::Bandwidth, _)]))?;
        let outcome = match counted[..] {
            [] if reception.ours == Ours::Yes => return Err(Mismatch::new("it is ours and was not counted")),
            [] if verdict == XDP_PASS => return Ok(Judged::NotOurs),
            [(outcome, 1)] => outcome,
            _ => return Err(Mismatch::new(format!("verdict {verdict}, counted: {counted:?}"))),
        };
        self.outcomes = outcomes;
        let expected = match outcome.verdict() {
            Verdict::Punt => XDP_PASS,
            Verdict::Drop => XDP_DROP,
        };
        if verdict != expected {
            return Err(Mismatch::new(format!("{outcome:?} with verdict {verdict}")));
        }
        if reception.ours == Ours::No {
            return Err(Mismatch::new(format!("it is not ours and was counted as {outcome:?}")));
        }
        if outcome == Outcome::Torn {
            return if world.driver.is_torn() {
                Ok(Judged::Stopped(outcome))
            } else {
                Err(Mismatch::new("a whole entry is called torn"))
            };
        }
        self.judge_stopped(world, packet, &reception, outcome)?;
        Ok(Judged::Stopped(outcome))
    }

    /// Has the program run.
    fn run(&mut self, world: &mut World<'_>, packet: &Packet) -> u32 {
        let meters = world.driver.meters();
        let Driver { program, counted, .. } = &mut world.driver;
        let outcomes = &mut self.outcomes;
        let run = program.run(packet, &self.frame, world.now, |program| {
            Driver::undo(program, counted, &meters);
            *outcomes = program.outcomes();
        });
        self.result.clear();
        self.result.extend_from_slice(run.frame);
        run.verdict
    }

    /// What is not forwarded changes nothing. (The limit comes last: what it ends has made room for what it was to be.)
    fn judge_untouched(&self, world: &World<'_>, is_beyond_limit: bool) -> Result<()> {
        if self.result != self.frame && !is_beyond_limit {
            return Err(Mismatch::new(format!(
                "it was not forwarded, and changed to\n{}",
                hex(&self.result)
            )));
        }
        let moved = world.driver.moved_counters();
        if moved.is_empty() {
            Ok(())
        } else {
            Err(Mismatch::new(format!("it was not forwarded, and moved counters {moved:?}")))
        }
    }

    fn judge_stopped(
        &mut self,
        world: &mut World<'_>,
        packet: &Packet,
        reception: &Reception,
        outcome: Outcome,
    ) -> Result<()> {
        let is_drop = outcome.verdict() == Verdict::Drop;
        if !is_drop && world.daemon_gone {
            return Err(Mismatch::new(format!("a punt as {outcome:?} to a daemon that has died")));
        }
        if !is_drop && let Some((meter, server, kernel)) = world.driver.meters_that_differ() {
            let text = format!("a punt as {outcome:?} moved meter {meter} from {server} to {kernel}");
            return Err(Mismatch::new(text));
        }
        // The kernel checks what it hands up.
        let datagram =
            reception.datagram.as_ref().filter(|datagram| is_drop || datagram.checksum != Came::Wrong);
        let served = datagram.map(|datagram| self.serve(world, datagram));
        let served = served.unwrap_or(Served { relayed: None, hairpin: false });
        // With the daemon, it would have been a punt.
        if is_drop && outcome != Outcome::DaemonGone {
            self.judge_meters(world)?;
        } else {
            world.driver.copy_meters();
        }
        let Some(datagram) = datagram.filter(|_| served.relayed.is_some()) else {
            let reasons = of_lost(reception);
            if reasons.contains(outcome) {
                return Ok(());
            }
            let text = format!("{} is not true of it, but one of {:?}", outcome.name(), reasons.names());
            return Err(Mismatch::new(text));
        };
        let sent = expect::sent(&self.sent).map_err(Mismatch::new)?;
        let next_hop = world.driver.next_hop_of(sent.source, sent.destination);
        let reasons =
            reception.reasons.union(not_to_send(world, packet, &self.frame, datagram, &sent, next_hop));
        let excuses = reception.excuses.union(not_to_hurry(world, datagram, served.hairpin));
        let is_reason = match outcome {
            Outcome::DaemonGone => {
                world.daemon_gone
                    && (!reasons.union(excuses).is_empty() || is_without_flows(world, datagram, &self.sent))
            }
            Outcome::NoFlow | Outcome::HairpinMiss => {
                reasons.contains(outcome) || is_without_flows(world, datagram, &self.sent)
            }
            _ => !is_drop && reasons.union(excuses).contains(outcome),
        };
        if is_reason {
            return Ok(());
        }
        let what = if is_drop { "dropped" } else { "punted" };
        let mut text = format!("it was {what} ({}), and the server relayed it", outcome.name());
        let _ =
            write!(text, " as\n{:?}\nby {next_hop:?}\nreasons not to forward: {:?}", sent, reasons.names());
        Err(Mismatch::new(text))
    }

    fn judge_forwarded(
        &mut self,
        world: &mut World<'_>,
        packet: &Packet,
        reception: &Reception,
        verdict: u32,
    ) -> Result<Forwarded> {
        let forwarded =
            |text: &str| Mismatch::new(format!("{text}: it was forwarded as\n{}", hex(&self.result)));
        let Some(datagram) = &reception.datagram else {
            return Err(forwarded(&format!("no socket would get it ({:?})", reception.reasons.names())));
        };
        let drops: Vec<_> = world.server.drops().collect();
        let served = self.serve(world, datagram);
        let Some((direction, traffic)) = served.relayed else {
            let mut after = world.server.drops().zip(drops);
            let reason = after.find(|(after, before)| after != before).map(|(after, _)| after.0);
            let text = format!("the server dropped it ({reason:?}), the program forwarded it as");
            return Err(Mismatch::new(format!("{text}\n{}", hex(&self.result))));
        };
        let sent = expect::sent(&self.sent).map_err(Mismatch::new)?;
        let next_hop = world.driver.next_hop_of(sent.source, sent.destination);
        let reasons =
            reception.reasons.union(not_to_send(world, packet, &self.frame, datagram, &sent, next_hop));
        let Some(next_hop) = next_hop.filter(|_| reasons.is_empty()) else {
            let text = format!("{:?} forbid it: it was forwarded as\n{}", reasons.names(), hex(&self.result));
            return Err(Mismatch::new(text));
        };
        let is_tx = next_hop.ifindex == world.driver.program.ifindexes[packet.ingress];
        if verdict != if is_tx { XDP_TX } else { XDP_REDIRECT } {
            return Err(Mismatch::new(format!("verdict {verdict} for {next_hop:?}")));
        }

        let came = match (datagram.endpoint, self.frame[datagram.payload.clone()].first()) {
            (Endpoint::Relayed, _) => Form::Datagram,
            (Endpoint::Listener, Some(0..=3)) => Form::Indication,
            (Endpoint::Listener, _) => Form::ChannelData,
        };
        let left = match (served.hairpin || direction == Direction::ToClient, sent.payload.first()) {
            (false, _) => Form::Datagram,
            (true, Some(0..=3)) => Form::Indication,
            (true, _) => Form::ChannelData,
        };
        let transaction = expect::frame(
            &mut self.expected,
            &mut self.result,
            &sent,
            left == Form::Indication,
            (&next_hop, datagram.checksum),
        )
        .map_err(|error| Mismatch::new(format!("{error}\n{}", hex(&self.result))))?;
        if self.result != self.expected {
            let (result, expected) = (hex(&self.result), hex(&self.expected));
            return Err(Mismatch::new(format!("it was forwarded as\n{result}\ninstead of\n{expected}")));
        }
        if let Some(transaction) = transaction
            && !self.transactions.insert(transaction)
        {
            return Err(Mismatch::new(format!("transaction ID {} again", hex(&transaction))));
        }
        judge_counters(world, datagram, &self.sent, (came, left), traffic)?;
        world.driver.accept_counters();
        self.judge_meters(world)?;
        let (from_ipv6, to_ipv6) = (datagram.source.is_ipv6(), sent.destination.is_ipv6());
        Ok(Forwarded { came, left, from_ipv6, to_ipv6 })
    }

    /// Hands a datagram to the server, as a driver does.
    fn serve(&mut self, world: &mut World<'_>, datagram: &Datagram) -> Served {
        let before = world.server.relayed_traffic();
        let payload = &self.frame[datagram.payload.clone()];
        let (source, destination) = (datagram.source, datagram.destination);
        match datagram.endpoint {
            Endpoint::Listener => {
                let five_tuple = five_tuple(source, destination);
                world.server.handle_client(world.now, five_tuple, datagram.meta, payload);
            }
            Endpoint::Relayed => {
                let (relayed, peer) = (RelayedAddr(destination), PeerAddr(source));
                world.server.handle_peer(world.now, relayed, peer, datagram.meta, payload);
            }
        }
        self.sent.clear();
        world.drain(Some(&mut self.sent));
        let after = world.server.relayed_traffic();
        let difference = |after: Traffic, before: Traffic| Traffic {
            packets: after.packets - before.packets,
            bytes: after.bytes - before.bytes,
        };
        let to_peer = difference(after.to_peer, before.to_peer);
        let to_client = difference(after.to_client, before.to_client);
        let hairpin = difference(after.hairpin, before.hairpin);
        let relayed =
            [(Direction::ToPeer, to_peer), (Direction::ToClient, to_client), (Direction::ToClient, hairpin)];
        Served {
            relayed: relayed.into_iter().find(|(_, traffic)| traffic.packets > 0),
            hairpin: hairpin.packets > 0,
        }
    }

    fn judge_meters(&self, world: &World<'_>) -> Result<()> {
        match world.driver.meters_that_differ() {
            None => Ok(()),
            Some((meter, server, kernel)) => {
                let text = format!("meter {meter}: {server} in the server, {kernel} in the kernel");
                Err(Mismatch::new(text))
            }
        }
    }
}

/// Exactly the flows that carried it have counted it, as the server has.
fn judge_counters(
    world: &World<'_>,
    datagram: &Datagram,
    sent: &[Output],
    (came, left): (Form, Form),
    traffic: Traffic,
) -> Result<()> {
    let one = FlowCounter::one(traffic.bytes as u16);
    let mut missing: Vec<&dyn Fn(&Flow) -> bool> = Vec::new();
    let sender = five_tuple(datagram.source, datagram.destination);
    let to_peer = |flow: &Flow| {
        flow.id.direction == Direction::ToPeer
            && flow.id.five_tuple == sender
            && match sent[0] {
                Output::ToPeer { relayed, peer, .. } => {
                    flow.id.relayed == relayed && is_peer(flow, came, peer.0)
                }
                _ => flow.hairpin.is_some() && is_form(flow, came),
            }
    };
    let to_client = |flow: &Flow| {
        flow.id.direction == Direction::ToClient
            && is_form(flow, left)
            && matches!(sent[0], Output::ToClient { five_tuple, .. } if flow.id.five_tuple == five_tuple)
            && (came != Form::Datagram
                || flow.id.relayed.0 == datagram.destination && is_peer(flow, left, datagram.source))
    };
    if came != Form::Datagram {
        missing.push(&to_peer);
    }
    if left != Form::Datagram {
        missing.push(&to_client);
    }
    let moved = world.driver.moved_counters();
    for &(counter, difference) in &moved {
        let Some(flow) = world.driver.flow_of_counter(counter) else {
            return Err(Mismatch::new(format!("counter {counter}, which is nobody's, has moved")));
        };
        let place = missing.iter().position(|is_it| difference == one && is_it(flow));
        let Some(place) = place else {
            let difference = FlowCounter(difference).since(FlowCounter(0));
            return Err(Mismatch::new(format!("{flow:?} counted {difference:?}, the server {traffic:?}")));
        };
        missing.remove(place);
    }
    if missing.is_empty() { Ok(()) } else { Err(Mismatch::new("a flow has not counted it")) }
}

const fn is_form(flow: &Flow, form: Form) -> bool {
    match form {
        Form::ChannelData => matches!(flow.id.form, FlowForm::Channel { .. }),
        Form::Indication => matches!(flow.id.form, FlowForm::Permission { .. }),
        Form::Datagram => false,
    }
}

fn is_peer(flow: &Flow, form: Form, address: SocketAddr) -> bool {
    is_form(flow, form)
        && match flow.id.form {
            FlowForm::Channel { peer, .. } => peer.0 == address,
            FlowForm::Permission { peer } => peer == address.ip(),
            FlowForm::Allocation => false,
        }
}

pub const fn five_tuple(client: SocketAddr, server: SocketAddr) -> FiveTuple {
    FiveTuple { client: ClientAddr(client), server: ServerAddr(server), transport: Transport::Udp }
}

fn differences(after: &Outcomes, before: &Outcomes) -> Vec<(Outcome, u64)> {
    let counts = Outcome::ALL.iter().zip(after.iter().zip(before));
    counts
        .filter(|(_, (after, before))| after != before)
        .map(|(&outcome, (after, before))| (outcome, after.wrapping_sub(*before)))
        .collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

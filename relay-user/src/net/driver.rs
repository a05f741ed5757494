//! Joins sockets, core and datapath: *mutate once, then drain `poll_output`*. Everything runs on one thread,
//! so nothing is locked; nothing here waits while it holds the state.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    io, iter, mem,
    net::SocketAddr,
    rc::{Rc, Weak},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::resource::{Resource, getrlimit};
use relay_common::clock::BootNanos;
use tokio::task::{AbortHandle, JoinHandle, spawn_local};

use super::{
    boot_now,
    ended::EndedSessions,
    log::ClientLog,
    log_limit::LogLimit,
    raw::RawSockets,
    report::{self, DatapathInfo},
    udp::{self, Endpoint},
};
use crate::{
    control::{
        admin::Query,
        status::{Sessions, Status},
    },
    datapath::{Datapath, InstallError},
    turn::{
        ClientAddr, Event, Family, FiveTuple, Flow, FlowId, Fragmentation, IcmpError, IpHeader, OpenError,
        Output, PeerAddr, Received, RelayedAddr, Server, ServerAddr, Transport,
    },
};

/// Datagrams taken from one socket before the others get their turn.
const BATCH: usize = 32;

/// Waiting flows offered to the datapath at a tick: no datagram waits long for them.
const INSTALL_BATCH: usize = 256;

/// How often the datapath's counters are read and its clock is kept fresh. Also how late the core may hear
/// that a lifetime ended; nothing is relayed past it meanwhile.
const TICK: Duration = Duration::from_millis(250);

/// Open files that are kept for the admin API and whatever else the daemon needs.
const RESERVED_FILES: u64 = 32;

/// What a driver is made of.
pub struct DriverOptions {
    /// The core.
    pub server: Server,
    /// The datapath.
    pub datapath: Box<dyn Datapath>,
    /// What `status` says of the datapath.
    pub datapath_info: DatapathInfo,
    /// Open listeners.
    pub listeners: Vec<Endpoint>,
    /// Whether clients' and peers' addresses may stand in the log.
    pub log_addresses: bool,
}

/// The running server.
pub struct Driver {
    state: Rc<RefCell<State>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Driver {
    /// Begins to serve, in tasks of the [`LocalSet`](tokio::task::LocalSet) that the caller runs in.
    pub fn start(options: DriverOptions) -> io::Result<Self> {
        let mut listeners = HashMap::new();
        for endpoint in options.listeners {
            listeners.insert(endpoint.address(), Rc::new(endpoint));
        }
        let raw = match RawSockets::open() {
            Ok(raw) => Some(raw),
            Err(error) => {
                tracing::warn!(
                    "senders do not hear of a TTL that is used up or of a packet that is too big, and IPv6 fragments \
                     are as large as the link takes: no raw socket: {error} (CAP_NET_RAW is needed)"
                );
                None
            }
        };
        let (mut server, mut datapath) = (options.server, options.datapath);
        share_limits(&mut server, datapath.as_mut());
        let state = Rc::new_cyclic(|myself| {
            RefCell::new(State {
                myself: myself.clone(),
                server,
                datapath,
                datapath_info: options.datapath_info,
                started: boot_now(),
                datapath_ticked: 0,
                listeners,
                raw,
                relayed: HashMap::new(),
                buffer: vec![0; udp::DATAGRAM_MAX],
                log: ClientLog::new(options.log_addresses),
                ended: EndedSessions::default(),
                counts: report::DriverCounts::default(),
                waiting: BTreeMap::new(),
                limits: Limits::default(),
            })
        });

        let mut tasks = vec![spawn_local(keep_time(Rc::downgrade(&state)))];
        {
            let mut state = state.borrow_mut();
            state.set_wall_clock(boot_now());
            let listeners = state.listeners.iter().map(|(&address, socket)| (address, Rc::clone(socket)));
            for (address, socket) in listeners.collect::<Vec<_>>() {
                state.tell_datapath("listener", address, |datapath| datapath.add_listener(address));
                tasks.push(spawn_local(receive(
                    state.myself.clone(),
                    socket,
                    Source::Listener(ServerAddr(address)),
                )));
            }
        }
        Ok(Self { state, tasks })
    }

    /// Answers the admin API.
    pub fn answer(&self, query: Query) {
        let mut state = self.state.borrow_mut();
        // An asker that has gone away needs no answer.
        match query {
            Query::Health(answer) => drop(answer.send(())),
            Query::Status(answer) => drop(answer.send(state.status())),
            Query::Sessions(answer) => drop(answer.send(state.sessions())),
        }
    }

    /// Ends every allocation, detaches the datapath and closes all sockets.
    pub fn shutdown(self) {
        for task in &self.tasks {
            task.abort();
        }
        let now = boot_now();
        let mut state = self.state.borrow_mut();
        state.server.shutdown(now);
        state.drain(now);
        state.datapath.tick(now);
        state.datapath.close();
        let State { ended, datapath, log, .. } = &mut *state;
        while let Some((record, fast)) = ended.take(datapath.as_mut()) {
            log.session_ended(&record, fast);
        }
        let status = state.status();
        tracing::info!(
            "stopped: {} packets to peers and {} to clients were carried in the kernel, {} and {} by the daemon",
            status.fast_path.to_peer.packets,
            status.fast_path.to_client.packets,
            status.slow_path.to_peer.packets,
            status.slow_path.to_client.packets,
        );
    }
}

/// Has core and datapath keep to the same limits, so that they hold for what both carry together.
fn share_limits(server: &mut Server, datapath: &mut dyn Datapath) {
    datapath.set_min_ipv6_mtu(server.config().min_ipv6_mtu);
    if let Some(rate) = server.config().limits.rate() {
        datapath.set_rate(rate);
    }
    if let Some(meters) = datapath.meters() {
        server.share_meters(meters);
    }
}

/// Where a datagram was received.
#[derive(Clone, Copy, Debug)]
enum Source {
    Listener(ServerAddr),
    Relayed(RelayedAddr),
}

/// Reads a socket for as long as it is open.
async fn receive(state: Weak<RefCell<State>>, endpoint: Rc<Endpoint>, source: Source) {
    loop {
        if let Err(error) = endpoint.ready().await {
            tracing::error!("{source:?}: the socket cannot be waited for: {error}");
            return;
        }
        let Some(state) = state.upgrade() else { return };
        state.borrow_mut().receive_batch(&endpoint, source);
        drop(state);
        // The socket may be readable still: the others first.
        tokio::task::yield_now().await;
    }
}

/// Refuses to open the socket if it took one of the last open files: clients must not lock the operator out.
fn unless_last_files(endpoint: Endpoint) -> io::Result<Endpoint> {
    // The kernel gives the lowest number that is free.
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if endpoint.last_file() as u64 + RESERVED_FILES >= limit {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(endpoint)
}

/// Installs waiting flows until one is not taken. A permission's may not be taken before its channels', which come before
/// it in the order of ids.
fn install_some(waiting: &mut BTreeMap<FlowId, Flow>, mut install: impl FnMut(&Flow) -> bool) {
    let installed: Vec<_> =
        waiting.values().take(INSTALL_BATCH).take_while(|flow| install(flow)).map(|flow| flow.id).collect();
    for flow in installed {
        waiting.remove(&flow);
    }
}

/// Whether a queue on the way out is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Calls for what time brings.
async fn keep_time(state: Weak<RefCell<State>>) {
    while let Some(state) = state.upgrade() {
        let wait = state.borrow_mut().keep_time();
        drop(state);
        tokio::time::sleep(wait).await;
    }
}

struct State {
    myself: Weak<RefCell<Self>>,
    server: Server,
    datapath: Box<dyn Datapath>,
    datapath_info: DatapathInfo,
    started: BootNanos,
    datapath_ticked: BootNanos,
    listeners: HashMap<SocketAddr, Rc<Endpoint>>,
    /// Without them there are no ICMP errors of ours.
    raw: Option<RawSockets>,
    relayed: HashMap<RelayedAddr, Relayed>,
    /// One for all sockets: only one is read at a time.
    buffer: Vec<u8>,
    log: ClientLog,
    ended: EndedSessions,
    counts: report::DriverCounts,
    /// Flows that the datapath did not take. They are offered again at each tick.
    waiting: BTreeMap<FlowId, Flow>,
    limits: Limits,
}

/// What a datagram did not fit.
struct TooBig {
    /// The family it was to be sent by.
    link: Family,
    /// The largest IP packet there.
    mtu: u32,
}

/// An open relayed transport address.
struct Relayed {
    endpoint: Rc<Endpoint>,
    reader: AbortHandle,
}

/// One for each kind of line that outsiders can cause.
#[derive(Default)]
struct Limits {
    install: LogLimit,
    open: LogLimit,
    receive: LogLimit,
    send: LogLimit,
}

impl State {
    fn receive_batch(&mut self, endpoint: &Endpoint, source: Source) {
        let mut buffer = mem::take(&mut self.buffer);
        for socket in endpoint.sockets() {
            self.relay_icmp_errors(endpoint, || socket.receive_error());
            self.drain(boot_now());
            for _ in 0..BATCH {
                match socket.receive(&mut buffer) {
                    Ok(datagram) => self.receive(source, &datagram, &buffer[..datagram.length]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error that came just now. The datagram is still there.
                    Err(_) if self.relay_icmp_errors(endpoint, || endpoint.icmp_error()) => {
                        self.drain(boot_now());
                    }
                    Err(error) => {
                        self.counts.receive_failed += 1;
                        if let Some(suppressed) = self.limits.receive.admit(boot_now()) {
                            tracing::warn!(suppressed, "a datagram could not be received: {error}");
                        }
                        break;
                    }
                }
            }
        }
        self.buffer = buffer;
    }

    fn receive(&mut self, source: Source, datagram: &udp::Datagram, data: &[u8]) {
        let now = boot_now();
        let (from, meta) = (datagram.from, datagram.meta);
        let destination = match source {
            Source::Listener(server) => {
                let five_tuple = FiveTuple { client: ClientAddr(from), server, transport: Transport::Udp };
                self.server.handle_client(now, five_tuple, meta, data);
                server.0
            }
            Source::Relayed(relayed) => {
                self.server.handle_peer(now, relayed, PeerAddr(from), meta, data);
                relayed.0
            }
        };
        if let Some(TooBig { link, mtu }) = self.drain(now) {
            let received = Received { source: from, destination, meta, payload: data };
            self.server.handle_too_big(now, &received, link, mtu);
            self.drain(now);
        }
    }

    /// Gives the core a batch of the ICMP errors that came back for datagrams from a relayed address, and returns
    /// whether there were any. Those for what was sent to clients are nobody's, and never queued.
    fn relay_icmp_errors(&mut self, endpoint: &Endpoint, next: impl FnMut() -> Option<IcmpError>) -> bool {
        let now = boot_now();
        let mut any = false;
        // Anybody can forge a flood of them.
        for error in iter::from_fn(next).take(BATCH) {
            self.server.handle_icmp(now, RelayedAddr(endpoint.address()), error);
            any = true;
        }
        if any {
            // More of them may be queued, which must not keep the next datagram.
            endpoint.clear_errors();
        }
        any
    }

    fn set_wall_clock(&mut self, now: BootNanos) {
        // A clock before 1970 says nothing: no credential is over by it.
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.server.set_wall_clock(now, unix);
    }

    /// Does what is due, and says how long nothing will be.
    fn keep_time(&mut self) -> Duration {
        let now = boot_now();
        if self.server.poll_timeout().is_some_and(|due| due <= now) {
            self.server.handle_timeout(now);
            self.drain(now);
        }
        let tick = TICK.as_nanos() as BootNanos;
        if now >= self.datapath_ticked + tick {
            self.datapath.tick(now);
            self.datapath_ticked = now;
            self.set_wall_clock(now);
            self.install_waiting();
            self.log_ended(now);
        }
        let next_tick = self.datapath_ticked + tick;
        let next = self.server.poll_timeout().map_or(next_tick, |due| due.min(next_tick));
        Duration::from_nanos(next.saturating_sub(now))
    }

    /// Does what the core wants, in its order: the only place where flows, relayed sockets and what is sent
    /// come from. Returns what was too big for its link, if anything was.
    fn drain(&mut self, now: BootNanos) -> Option<TooBig> {
        let mut too_big = None;
        while let Some(output) = self.server.poll_output() {
            match output {
                Output::ToClient { five_tuple, ip, datagram } => {
                    let endpoint = self.listeners.get(&five_tuple.server.0).cloned();
                    too_big = self.transmit(now, endpoint, ip, &datagram, five_tuple.client.0).or(too_big);
                }
                Output::ToPeer { relayed, peer, ip, data } => {
                    let endpoint = self.relayed.get(&relayed).map(|open| Rc::clone(&open.endpoint));
                    too_big = self.transmit(now, endpoint, ip, &data, peer.0).or(too_big);
                }
                Output::Icmp(message) => {
                    if let Some(raw) = &self.raw {
                        let sent = raw.send_icmp(&message);
                        self.note_sent(now, sent, SocketAddr::new(message.destination, 0));
                    }
                }
                Output::OpenRelayed { relayed, .. } => {
                    let result = self.open_relayed(now, relayed);
                    self.server.relayed_address_opened(now, relayed, result);
                }
                Output::CloseRelayed { relayed } => {
                    self.datapath.remove_relayed(relayed);
                    if let Some(open) = self.relayed.remove(&relayed) {
                        self.counts.receive_buffer_full += open.endpoint.receive_drops();
                        open.reader.abort();
                    }
                }
                Output::InstallFlow(flow) => {
                    if self.tell_datapath("flow", flow.id.relayed, |datapath| datapath.install_flow(&flow)) {
                        self.waiting.remove(&flow.id);
                    } else {
                        self.waiting.insert(flow.id, flow);
                    }
                }
                Output::RemoveFlow(flow) => {
                    self.waiting.remove(&flow);
                    self.datapath.remove_flow(&flow);
                }
                Output::Event(event) => self.note(now, event),
            }
        }
        too_big
    }

    /// Sends a datagram, or says why it is too big. `None` for the endpoint: it is closed.
    fn transmit(
        &mut self,
        now: BootNanos,
        endpoint: Option<Rc<Endpoint>>,
        ip: IpHeader,
        data: &[u8],
        to: SocketAddr,
    ) -> Option<TooBig> {
        let Some(endpoint) = endpoint else {
            self.note_sent(now, Err(io::ErrorKind::NotConnected.into()), to);
            return None;
        };
        let mut sent = self.send(&endpoint, ip, data, to);
        if sent.as_ref().is_err_and(|error| !is_full(error)) {
            // It may be that of an earlier datagram, and this one was not tried.
            self.relay_icmp_errors(&endpoint, || endpoint.icmp_error());
            endpoint.clear_errors();
            sent = self.send(&endpoint, ip, data, to);
        }
        let too_big = sent.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::EMSGSIZE));
        if too_big
            && ip.fragmentation == Fragmentation::Never
            && let Ok(mtu) = endpoint.mtu(to)
        {
            return Some(TooBig { link: Family::of(to.ip()), mtu });
        }
        self.note_sent(now, sent, to);
        None
    }

    fn send(&self, endpoint: &Endpoint, ip: IpHeader, data: &[u8], to: SocketAddr) -> io::Result<()> {
        match (ip.fragmentation, &self.raw, endpoint.address(), to) {
            (Fragmentation::AtMost(mtu), Some(raw), SocketAddr::V6(from), SocketAddr::V6(to)) => {
                raw.send_fragments(from, to, ip, data, mtu)
            }
            _ => endpoint.send(ip, data, to),
        }
    }

    fn open_relayed(&mut self, now: BootNanos, relayed: RelayedAddr) -> Result<(), OpenError> {
        let endpoint = match Endpoint::relayed(relayed.0).and_then(unless_last_files) {
            Ok(endpoint) => Rc::new(endpoint),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(OpenError::Unavailable),
            Err(error) => {
                if let Some(suppressed) = self.limits.open.admit(now) {
                    let remedy = match error.raw_os_error() {
                        Some(libc::EMFILE | libc::ENFILE) => ": raise the limit of open files (LimitNOFILE)",
                        Some(libc::EADDRNOTAVAIL) => {
                            ": the relay address is gone from this host, or not usable yet"
                        }
                        _ => "",
                    };
                    tracing::error!(
                        suppressed,
                        "a relayed address could not be opened: {relayed}: {error}{remedy}"
                    );
                }
                // There may be another relay address that is still here.
                return Err(match error.kind() {
                    io::ErrorKind::AddrNotAvailable => OpenError::Unavailable,
                    _ => OpenError::Other,
                });
            }
        };
        let reader =
            spawn_local(receive(self.myself.clone(), Rc::clone(&endpoint), Source::Relayed(relayed)));
        self.relayed.insert(relayed, Relayed { endpoint, reader: reader.abort_handle() });
        self.tell_datapath("relayed address", relayed, |datapath| datapath.add_relayed(relayed));
        Ok(())
    }

    /// Installs flows that found no room when the core stated them, until one finds none again.
    fn install_waiting(&mut self) {
        let Self { waiting, datapath, .. } = self;
        install_some(waiting, |flow| datapath.install_flow(flow).is_ok());
    }

    /// Tells the datapath something, and returns whether it took it. If not, the slow path carries on.
    fn tell_datapath(
        &mut self,
        what: &str,
        address: impl std::fmt::Display,
        tell: impl FnOnce(&mut dyn Datapath) -> Result<(), InstallError>,
    ) -> bool {
        let Err(error) = tell(self.datapath.as_mut()) else { return true };
        if let Some(suppressed) = self.limits.install.admit(boot_now()) {
            tracing::warn!(
                suppressed,
                "the daemon carries what the kernel did not take ({what} of {address}): {error}"
            );
        }
        false
    }

    /// Counts a datagram that was not sent.
    fn note_sent(&mut self, now: BootNanos, sent: io::Result<()>, to: SocketAddr) {
        let Err(error) = sent else { return };
        if is_full(&error) {
            self.counts.send_buffer_full += 1;
            return;
        }
        self.counts.send_failed += 1;
        if let Some(suppressed) = self.limits.send.admit(now) {
            tracing::warn!(suppressed, to = self.log.shown(to), "a datagram could not be sent: {error}");
        }
    }

    fn note(&mut self, now: BootNanos, event: Event) {
        match event {
            Event::AllocationCreated { allocation, five_tuple, relayed, username } => {
                self.log.allocation_created(allocation.0, &five_tuple, &relayed, &username);
            }
            Event::AllocationEnded(record) => self.ended.add(*record),
            Event::AuthenticationFailed { five_tuple, username, cause } => {
                self.log.authentication_failed(now, &five_tuple, username.as_deref(), cause);
            }
        }
    }

    /// Tells of the sessions whose last packets are counted.
    fn log_ended(&mut self, now: BootNanos) {
        while let Some((record, fast)) = self.ended.take_final(now, self.datapath.as_mut()) {
            self.log.session_ended(&record, fast);
        }
    }

    fn status(&mut self) -> Status {
        let open = self.listeners.values().chain(self.relayed.values().map(|relayed| &relayed.endpoint));
        let mut counts = self.counts;
        counts.receive_buffer_full += open.map(|endpoint| endpoint.receive_drops()).sum::<u64>();
        report::status(&report::Sources {
            server: &self.server,
            datapath: self.datapath.counts(),
            datapath_info: &self.datapath_info,
            counts,
            not_installed: self.waiting.len() as u64,
            listeners: self.listeners.keys().copied().collect(),
            uptime: Duration::from_nanos(boot_now().saturating_sub(self.started)),
        })
    }

    fn sessions(&mut self) -> Sessions {
        report::sessions(&self.server, self.datapath.as_mut(), boot_now())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::IpAddr};

    use super::*;
    use crate::turn::{AllocationId, ChannelNumber, Direction, FlowForm};

    fn to_client(client: u16, form: FlowForm) -> Flow {
        let address = |port| SocketAddr::from(([198, 18, 1, 1], port));
        let id = FlowId {
            direction: Direction::ToClient,
            five_tuple: FiveTuple {
                client: ClientAddr(address(client)),
                server: ServerAddr(address(3478)),
                transport: Transport::Udp,
            },
            relayed: RelayedAddr(address(49_152)),
            form,
        };
        Flow { id, allocation: AllocationId(1), expires: 100, hairpin: None, meter: None }
    }

    #[test]
    fn flows_that_wait_for_others_that_wait_keep_nobody_waiting() {
        let peer: IpAddr = [198, 18, 2, 2].into();
        let number = ChannelNumber::new(0x4000).unwrap();
        let channel = FlowForm::Channel { peer: PeerAddr(SocketAddr::new(peer, 5000)), number };
        let permission = FlowForm::Permission { peer };
        let flows = (0..64).flat_map(|client| [permission, channel].map(|form| to_client(client, form)));
        let mut waiting = flows.map(|flow| (flow.id, flow)).collect();
        // As the datapath does it: the channel, then the permission.
        let mut installed = HashSet::new();
        for _tick in 0..3 {
            install_some(&mut waiting, |flow| {
                let takes =
                    flow.id.form == channel || installed.contains(&FlowId { form: channel, ..flow.id });
                takes && installed.insert(flow.id)
            });
        }
        assert_eq!(waiting.len(), 0);
    }
}

//! The server: its inputs, its outputs, and the way of a datagram to what handles it.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use rand::CryptoRng;
use relay_common::{
    channel_data::{FirstByte, classify},
    clock::BootNanos,
};

use super::{
    address::{Family, FiveTuple, PeerAddr, RelayedAddr},
    allocation::{Allocations, Effects, Ended},
    config::{Config, ConfigError},
    credentials::Credentials,
    drops::{DropReason, Drops},
    flow::AllocationId,
    icmp::{IcmpError, Received},
    ip::IpMeta,
    meters::Meters,
    nonce::Nonces,
    output::{EndReason, Output},
    own_addresses::OwnAddresses,
    ports::RelayedPorts,
    quota::Quotas,
    requests::PendingAllocate,
    reservation::{Reservation, Reservations},
    responses::Responses,
    session::{Session, Totals},
    strangers::Strangers,
    stun::ErrorCode,
    timers::Timer,
    traffic::Relayed,
};

/// A TURN server (RFC 8656) without sockets and clock.
///
/// Every input first ends what has expired by `now`, so nothing that is over ever counts, however late the
/// driver calls [`handle_timeout`](Self::handle_timeout).
pub struct Server {
    pub(super) config: Config,
    pub(super) credentials: Credentials,
    pub(super) nonces: Nonces,
    pub(super) rng: Box<dyn CryptoRng + Send>,
    pub(super) own: OwnAddresses,
    pub(super) ports: RelayedPorts,
    pub(super) quotas: Quotas,
    pub(super) reservations: Reservations,
    pub(super) allocations: Allocations,
    pub(super) effects: Effects,
    pub(super) meters: Meters,
    pub(super) pending: HashMap<RelayedAddr, PendingAllocate>,
    pub(super) last_allocation: AllocationId,
    pub(super) relayed: Relayed,
    pub(super) drops: Drops,
    pub(super) responses: Responses,
    pub(super) strangers: Strangers,
    /// When the ICMP errors that the server made would be through at the rate of their limit.
    pub(super) icmp_through: BootNanos,
    /// What time it was for people, and when.
    pub(super) wall_clock: (BootNanos, Duration),
}

/// Why the driver could not open a relayed address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// This address and port is not to be had (another program has the port, the address is gone): another may
    /// be.
    Unavailable,
    /// No other would do either.
    Other,
}

impl Server {
    /// A server without allocations. `nonce_key` and `rng` must be unpredictable to clients: the one makes
    /// nonces, the other chooses ports, reservation tokens and the transaction IDs of Data indications.
    pub fn new(
        config: Config,
        credentials: Credentials,
        nonce_key: [u8; 32],
        mut rng: impl CryptoRng + Send + 'static,
    ) -> Result<Self, ConfigError> {
        let config = config.check()?;
        let mut source_key = [0; 16];
        rng.fill_bytes(&mut source_key);
        Ok(Self {
            credentials,
            nonces: Nonces::new(nonce_key, config.lifetimes.nonce),
            rng: Box::new(rng),
            own: OwnAddresses::new(&config),
            ports: RelayedPorts::new(&config.relay_addresses, &config.relay_ports),
            quotas: Quotas::new(&config.limits),
            reservations: Reservations::default(),
            allocations: Allocations::default(),
            effects: Effects::default(),
            meters: Meters::new(config.limits.rate()),
            pending: HashMap::new(),
            last_allocation: AllocationId(0),
            relayed: Relayed::default(),
            drops: Drops::new(),
            responses: Responses::new(),
            strangers: Strangers::new(source_key, config.limits.unauthenticated_per_second),
            icmp_through: 0,
            wall_clock: (0, Duration::ZERO),
            config,
        })
    }

    /// Meters allocations by these words from now on, together with the kernel program: word *n* for those whose
    /// [`Flow::meter`](super::Flow::meter) is *n*, the first for none. To be called before the first input. An allocation
    /// that finds no word free, or any allocation where this is never called, has no flows while there is a limit.
    pub fn share_meters(&mut self, meters: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>) {
        self.meters.share(meters);
    }

    /// A datagram has come to a listener.
    pub fn handle_client(&mut self, now: BootNanos, five_tuple: FiveTuple, meta: IpMeta, datagram: &[u8]) {
        self.expire(now);
        let first_byte = datagram.first().map_or(FirstByte::Other, |&byte| classify(byte));
        let handled = match first_byte {
            FirstByte::Stun => self.handle_stun(now, five_tuple, meta, datagram),
            FirstByte::ChannelData => self.relay_channel_data(now, five_tuple, meta, datagram),
            FirstByte::Rfc5766ChannelData if self.config.rfc5766_channels => {
                self.relay_channel_data(now, five_tuple, meta, datagram)
            }
            FirstByte::Dtls => Err(DropReason::Dtls),
            FirstByte::Rfc5766ChannelData | FirstByte::Other => Err(DropReason::NotTurn),
        };
        let (source, destination) = (five_tuple.client.0, five_tuple.server.0);
        self.settle(now, &Received { source, destination, meta, payload: datagram }, handled);
    }

    /// A datagram with `data` has come from `peer` to the relayed address.
    pub fn handle_peer(
        &mut self,
        now: BootNanos,
        relayed: RelayedAddr,
        peer: PeerAddr,
        meta: IpMeta,
        data: &[u8],
    ) {
        self.expire(now);
        let handled = self.relay_peer_data(now, relayed, peer, meta, data);
        let received = Received { source: peer.0, destination: relayed.0, meta, payload: data };
        self.settle(now, &received, handled);
    }

    /// What was made of `received`, the last datagram given to the server, did not fit the outgoing link, which is
    /// of this family and takes IP packets of at most `mtu` bytes. It was not sent.
    pub fn handle_too_big(&mut self, now: BootNanos, received: &Received<'_>, link: Family, mtu: u32) {
        self.expire(now);
        self.drops.count(DropReason::Mtu);
        self.answer_too_big(now, received, link, mtu);
    }

    /// An ICMP error has come back for a datagram that left from the relayed address.
    pub fn handle_icmp(&mut self, now: BootNanos, relayed: RelayedAddr, error: IcmpError) {
        self.expire(now);
        if let Err(reason) = self.relay_icmp(relayed, error) {
            self.drops.count(reason);
        }
    }

    /// Tells the server what time it is for people, which time-limited credentials are judged by: `unix` since
    /// the epoch at `now`. To be called before the first input, and again now and then, for clocks are set.
    pub fn set_wall_clock(&mut self, now: BootNanos, unix: Duration) {
        self.wall_clock = (now, unix);
    }

    /// The answer to [`Output::OpenRelayed`].
    pub fn relayed_address_opened(
        &mut self,
        now: BootNanos,
        relayed: RelayedAddr,
        result: Result<(), OpenError>,
    ) {
        self.expire(now);
        if let Some(pending) = self.pending.remove(&relayed) {
            self.continue_allocate(now, relayed, pending, result);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: BootNanos) {
        self.expire(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called.
    pub fn poll_timeout(&self) -> Option<BootNanos> {
        self.effects.timers.next()
    }

    /// The next thing to do. To be called after each input until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.effects.outputs.pop_front()
    }

    /// Ends every allocation and reservation.
    pub fn shutdown(&mut self, now: BootNanos) {
        self.expire(now);
        while let Some(id) = self.allocations.first() {
            self.end_allocation(now, id, EndReason::Shutdown);
        }
        while let Some(token) = self.reservations.first() {
            if let Some(reservation) = self.reservations.take(token, &mut self.effects.timers) {
                self.end_reservation(&reservation);
            }
        }
    }

    /// The settings it was made with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Numbers of live things.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            allocations: self.allocations.len(),
            reservations: self.reservations.len(),
            ..Totals::default()
        };
        for allocation in self.allocations.iter() {
            totals.permissions += allocation.permission_count();
            totals.channels += allocation.channels().len();
        }
        totals
    }

    /// What the slow path relayed.
    pub const fn relayed_traffic(&self) -> Relayed {
        self.relayed
    }

    /// What the slow path dropped, by reason.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.drops.iter()
    }

    /// What was answered at least once: the method, the error code of an error response, and how often.
    pub fn responses(&self) -> impl Iterator<Item = (&'static str, Option<ErrorCode>, u64)> + '_ {
        self.responses.iter()
    }

    /// Every live allocation, oldest first.
    pub fn sessions(&self) -> impl Iterator<Item = Session> + '_ {
        self.allocations.iter().map(|allocation| allocation.session(&self.own))
    }

    /// Ends what has expired by `now`.
    fn expire(&mut self, now: BootNanos) {
        while let Some((deadline, timer)) = self.effects.timers.pop_due(now) {
            match timer {
                Timer::Relayed(id, family) => self.end_relayed(deadline, id, family, EndReason::Expired),
                Timer::Permission(id, ip) => {
                    if let Some(allocation) = self.allocations.get_mut(id) {
                        allocation.permission_expired(ip, &self.own, &mut self.effects);
                    }
                }
                Timer::Channel(id, number) => {
                    if let Some(allocation) = self.allocations.get_mut(id) {
                        allocation.channel_expired(number, &self.own, &mut self.effects);
                    }
                }
                Timer::Reservation(token) => {
                    if let Some(reservation) = self.reservations.expired(token) {
                        self.end_reservation(&reservation);
                    }
                }
            }
        }
    }

    /// Ends an allocation with all it has.
    pub(super) fn end_allocation(&mut self, now: BootNanos, id: AllocationId, reason: EndReason) {
        for family in Family::ALL {
            self.end_relayed(now, id, family, reason);
        }
    }

    /// Frees what was held in reserve.
    fn end_reservation(&mut self, reservation: &Reservation) {
        self.ports.release(reservation.relayed);
        self.quotas.release(&reservation.quota_user, 1);
    }

    /// Ends one relayed address of an allocation, if it has one of this family, and with the last one the
    /// allocation.
    pub(super) fn end_relayed(
        &mut self,
        now: BootNanos,
        id: AllocationId,
        family: Family,
        reason: EndReason,
    ) {
        let names = (self.config.realm.as_str(), &self.own);
        let ended = self.allocations.end_relayed(id, family, (now, reason), names, &mut self.effects);
        if let Some(Ended { relayed, last_of }) = ended {
            self.ports.release(relayed);
            if let Some((quota_user, meter)) = last_of {
                self.quotas.release(&quota_user, 1);
                self.meters.release(&meter);
            }
        }
    }

    /// What time it is for people, since the epoch.
    pub(super) const fn unix_time(&self, now: BootNanos) -> Duration {
        let (then, unix) = self.wall_clock;
        unix.saturating_add(Duration::from_nanos(now.saturating_sub(then)))
    }

    /// Counts what was dropped, and says so where somebody is to know.
    fn settle(&mut self, now: BootNanos, received: &Received<'_>, handled: Result<(), DropReason>) {
        let Err(reason) = handled else { return };
        self.drops.count(reason);
        if reason == DropReason::Ttl {
            self.answer_time_exceeded(now, received);
        }
    }
}

/// The moment `duration` after `now`.
pub(super) const fn after(now: BootNanos, duration: Duration) -> BootNanos {
    now.saturating_add(duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64)
}

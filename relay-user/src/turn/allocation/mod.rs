//! Allocations (RFC 8656 section 6). Whatever changes until when a relayed address, a permission or a channel carries
//! data ends in [`flows`].

mod flows;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use relay_common::clock::BootNanos;

use self::flows::Stated;
use super::{
    address::{ChannelNumber, Family, FiveTuple, PeerAddr, RelayedAddr},
    channel::{Channel, Channels},
    flow::{AllocationId, FlowForm},
    meters::Meter,
    output::{EndReason, Event, Output},
    own_addresses::OwnAddresses,
    permission::{Permissions, PermittedPeers},
    reservation::Token,
    session::{Session, SessionChannel, SessionRecord, SessionRelayed},
    stun::{ErrorCode, TransactionId},
    timers::{Timer, Timers},
    traffic::Traffic,
};

/// Where changes of an allocation show: deadlines and outputs.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Output>,
}

/// One client's relayed transport addresses and what they may be used for.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) origin: Origin,
    pub(super) to_peer: Traffic,
    pub(super) to_client: Traffic,
    /// Application data of both directions.
    pub(super) meter: Meter,
    started: BootNanos,
    /// By [`Family`]: at least one, until the allocation ends.
    relayed: [Option<Relayed>; 2],
    /// Those that were deleted or expired before the rest.
    ended: Vec<(RelayedAddr, BootNanos)>,
    /// The request that deleted one of two relayed addresses: the same again is a retransmission.
    deleted_by: Option<TransactionId>,
    channels: Channels,
    peers: PermittedPeers,
}

/// The Allocate request that an allocation was made for.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) id: AllocationId,
    pub(super) five_tuple: FiveTuple,
    pub(super) username: Arc<str>,
    /// Whose quota it counts towards.
    pub(super) quota_user: Arc<str>,
    /// The same again is a retransmission.
    pub(super) transaction_id: TransactionId,
    /// The family that was asked for too and could not be had, and why.
    pub(super) missing: Option<(Family, ErrorCode)>,
    /// What claims the port that was reserved along with it, for the response to a retransmission.
    pub(super) token: Option<Token>,
}

/// One relayed transport address.
#[derive(Debug)]
struct Relayed {
    address: RelayedAddr,
    expires: BootNanos,
    permissions: Permissions,
}

impl Allocation {
    /// An allocation without permissions and channels. `addresses`: one, or one of each family. Different peers
    /// are counted up to `max_peers`.
    pub(super) fn new(
        origin: Origin,
        addresses: &[RelayedAddr],
        (max_peers, meter): (usize, Meter),
        (now, expires): (BootNanos, BootNanos),
        own: &OwnAddresses,
        effects: &mut Effects,
    ) -> Self {
        effects.outputs.push_back(Output::Event(Event::AllocationCreated {
            allocation: origin.id,
            five_tuple: origin.five_tuple,
            relayed: addresses.to_vec(),
            username: origin.username.to_string(),
        }));
        let mut allocation = Self {
            origin,
            to_peer: Traffic::default(),
            to_client: Traffic::default(),
            meter,
            started: now,
            relayed: [None, None],
            ended: Vec::new(),
            deleted_by: None,
            channels: Channels::default(),
            peers: PermittedPeers::new(max_peers),
        };
        for &address in addresses {
            let family = address.family();
            let stated = Stated::nothing_of(address);
            effects.timers.set(Timer::Relayed(allocation.origin.id, family), None, Some(expires));
            allocation.relayed[index(family)] =
                Some(Relayed { address, expires, permissions: Permissions::default() });
            allocation.settle_flows(stated, own, effects);
        }
        allocation
    }

    /// Moves the end of a relayed address. Permissions and channels keep theirs (RFC 8656 section 8).
    pub(super) fn refresh(
        &mut self,
        family: Family,
        expires: BootNanos,
        own: &OwnAddresses,
        effects: &mut Effects,
    ) {
        let stated = self.stated_of_family(family);
        let Some((stated, relayed)) = stated.zip(self.relayed[index(family)].as_mut()) else { return };
        effects.timers.set(Timer::Relayed(self.origin.id, family), Some(relayed.expires), Some(expires));
        relayed.expires = expires;
        self.settle_flows(stated, own, effects);
    }

    /// Remembers the request that deleted one of its relayed addresses.
    pub(super) fn note_deletion(&mut self, transaction_id: TransactionId) {
        self.deleted_by = Some(transaction_id);
    }

    /// Whether this request has deleted one of its relayed addresses already.
    pub(super) fn was_deleted_by(&self, transaction_id: TransactionId) -> bool {
        self.deleted_by == Some(transaction_id)
    }

    /// Installs or prolongs a permission. Does nothing without a relayed address of the peer's family.
    pub(super) fn permit(&mut self, ip: IpAddr, until: BootNanos, own: &OwnAddresses, effects: &mut Effects) {
        if self.moves_permission(ip, until)
            && let Some(stated) = self.stated_of_ip(ip)
        {
            self.install_permission(ip, until, effects);
            self.settle_flows(stated, own, effects);
        }
    }

    /// Binds or prolongs a channel, which [`Channels::check`] allowed, and its permission.
    pub(super) fn bind(
        &mut self,
        number: ChannelNumber,
        (peer, hairpin): (PeerAddr, bool),
        (channel_until, permission_until): (BootNanos, BootNanos),
        own: &OwnAddresses,
        effects: &mut Effects,
    ) {
        let ip = peer.0.ip();
        let form = FlowForm::Channel { peer, number };
        let stated = if !self.moves_permission(ip, permission_until) {
            self.stated(Family::of(ip), [form])
        } else if self.channels.get(number).is_some() {
            self.stated_of_ip(ip)
        } else {
            self.stated_of_ip(ip).map(|stated| stated.and_not(form))
        };
        let Some(stated) = stated else { return };
        let old = self.channels.bind(number, peer, hairpin, channel_until);
        effects.timers.set(Timer::Channel(self.origin.id, number), old, Some(channel_until));
        self.install_permission(ip, permission_until, effects);
        self.settle_flows(stated, own, effects);
    }

    /// Whether the permission is new, or would last longer.
    fn moves_permission(&self, ip: IpAddr, until: BootNanos) -> bool {
        let relayed = self.relayed[index(Family::of(ip))].as_ref();
        relayed.and_then(|relayed| relayed.permissions.expires(ip)).is_none_or(|end| end < until)
    }

    fn install_permission(&mut self, ip: IpAddr, until: BootNanos, effects: &mut Effects) {
        if let Some(relayed) = &mut self.relayed[index(Family::of(ip))] {
            let (old, new) = relayed.permissions.install(ip, until);
            effects.timers.set(Timer::Permission(self.origin.id, ip), old, Some(new));
            self.peers.note(ip);
        }
    }

    /// The permission's deadline has come.
    pub(super) fn permission_expired(&mut self, ip: IpAddr, own: &OwnAddresses, effects: &mut Effects) {
        let stated = self.stated_of_ip(ip);
        if let Some((stated, relayed)) = stated.zip(self.relayed[index(Family::of(ip))].as_mut()) {
            relayed.permissions.remove(ip);
            self.settle_flows(stated, own, effects);
        }
    }

    /// The channel's deadline has come.
    pub(super) fn channel_expired(
        &mut self,
        number: ChannelNumber,
        own: &OwnAddresses,
        effects: &mut Effects,
    ) {
        let Some(&Channel { peer, .. }) = self.channels.get(number) else { return };
        let form = FlowForm::Channel { peer, number };
        let stated = self.stated(Family::of(peer.0.ip()), [form]);
        self.channels.remove(number);
        if let Some(stated) = stated {
            self.settle_flows(stated, own, effects);
        }
    }

    /// Ends a relayed address with its permissions and channels, flows first. Its own deadline may have been
    /// taken out already (`reason` says so).
    fn end_relayed(
        &mut self,
        family: Family,
        now: BootNanos,
        reason: EndReason,
        own: &OwnAddresses,
        effects: &mut Effects,
    ) -> Option<RelayedAddr> {
        let stated = self.stated_of_family(family)?;
        let Relayed { address, expires, permissions } = self.relayed[index(family)].take()?;
        if reason != EndReason::Expired {
            effects.timers.set(Timer::Relayed(self.origin.id, family), Some(expires), None);
        }
        for (ip, expires) in permissions.iter() {
            effects.timers.set(Timer::Permission(self.origin.id, ip), Some(expires), None);
        }
        let numbers: Vec<_> = self.channels.of_family(family).map(|(_, number)| number).collect();
        for number in numbers {
            if let Some(channel) = self.channels.remove(number) {
                effects.timers.set(Timer::Channel(self.origin.id, number), Some(channel.expires), None);
            }
        }
        self.settle_flows(stated, own, effects);
        self.ended.push((address, now));
        effects.outputs.push_back(Output::CloseRelayed { relayed: address });
        Some(address)
    }

    /// The relayed address of a family.
    pub(super) fn relayed(&self, family: Family) -> Option<RelayedAddr> {
        self.relayed[index(family)].as_ref().map(|relayed| relayed.address)
    }

    /// Every relayed address with its end: IPv4 first.
    pub(super) fn relayed_addresses(&self) -> impl Iterator<Item = (RelayedAddr, BootNanos)> + '_ {
        self.relayed.iter().flatten().map(|relayed| (relayed.address, relayed.expires))
    }

    /// Whether there is a live permission for the address.
    pub(super) fn permits(&self, ip: IpAddr) -> bool {
        self.relayed[index(Family::of(ip))].as_ref().is_some_and(|relayed| relayed.permissions.contains(ip))
    }

    /// Live permissions with their ends.
    pub(super) fn permissions(&self) -> impl Iterator<Item = (IpAddr, BootNanos)> + '_ {
        self.relayed.iter().flatten().flat_map(|relayed| relayed.permissions.iter())
    }

    /// Number of live permissions.
    pub(super) fn permission_count(&self) -> usize {
        self.relayed.iter().flatten().map(|relayed| relayed.permissions.len()).sum()
    }

    pub(super) const fn channels(&self) -> &Channels {
        &self.channels
    }

    /// What an operator may see of it now.
    pub(super) fn session(&self, own: &OwnAddresses) -> Session {
        Session {
            allocation: self.origin.id,
            username: self.origin.username.to_string(),
            five_tuple: self.origin.five_tuple,
            relayed: self.relayed_addresses().map(|relayed| shown(relayed, own)).collect(),
            permissions: self.permissions().collect(),
            channels: self
                .channels
                .iter()
                .map(|channel| SessionChannel {
                    number: channel.number,
                    peer: channel.peer,
                    expires: channel.expires,
                })
                .collect(),
            to_peer: self.to_peer,
            to_client: self.to_client,
        }
    }

    /// What is to be remembered of it, once every relayed address has ended.
    fn record(self, realm: &str, own: &OwnAddresses, ended: BootNanos, reason: EndReason) -> SessionRecord {
        SessionRecord {
            allocation: self.origin.id,
            username: self.origin.username.to_string(),
            realm: realm.to_owned(),
            five_tuple: self.origin.five_tuple,
            relayed: self.ended.iter().map(|&relayed| shown(relayed, own)).collect(),
            peer_count: self.peers.count(),
            peers: self.peers.into_first(),
            started: self.started,
            ended,
            reason,
            to_peer: self.to_peer,
            to_client: self.to_client,
        }
    }
}

const fn index(family: Family) -> usize {
    match family {
        Family::V4 => 0,
        Family::V6 => 1,
    }
}

fn shown((address, expires): (RelayedAddr, BootNanos), own: &OwnAddresses) -> SessionRelayed {
    SessionRelayed { address, external: own.external(address), expires }
}

/// A relayed address that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Free now.
    pub(super) relayed: RelayedAddr,
    /// What the allocation leaves, if it ended with this address: whose quota it counted towards, and its meter.
    pub(super) last_of: Option<(Arc<str>, Meter)>,
}

/// Live allocations, by each of their names.
#[derive(Debug, Default)]
pub(super) struct Allocations {
    by_id: BTreeMap<AllocationId, Allocation>,
    by_five_tuple: HashMap<FiveTuple, AllocationId>,
    by_relayed: HashMap<RelayedAddr, AllocationId>,
}

impl Allocations {
    pub(super) fn insert(&mut self, allocation: Allocation) {
        let id = allocation.origin.id;
        self.by_five_tuple.insert(allocation.origin.five_tuple, id);
        self.by_relayed.extend(allocation.relayed_addresses().map(|(relayed, _)| (relayed, id)));
        self.by_id.insert(id, allocation);
    }

    /// Ends one relayed address of an allocation, and with the last one the allocation.
    pub(super) fn end_relayed(
        &mut self,
        id: AllocationId,
        family: Family,
        (now, reason): (BootNanos, EndReason),
        (realm, own): (&str, &OwnAddresses),
        effects: &mut Effects,
    ) -> Option<Ended> {
        let allocation = self.by_id.get_mut(&id)?;
        let relayed = allocation.end_relayed(family, now, reason, own, effects)?;
        self.by_relayed.remove(&relayed);
        let mut last_of = None;
        if allocation.relayed_addresses().next().is_none()
            && let Some(mut allocation) = self.by_id.remove(&id)
        {
            self.by_five_tuple.remove(&allocation.origin.five_tuple);
            let meter = std::mem::replace(&mut allocation.meter, Meter::Unlimited);
            last_of = Some((allocation.origin.quota_user.clone(), meter));
            let record = allocation.record(realm, own, now, reason);
            effects.outputs.push_back(Output::Event(Event::AllocationEnded(Box::new(record))));
        }
        Some(Ended { relayed, last_of })
    }

    pub(super) fn get_mut(&mut self, id: AllocationId) -> Option<&mut Allocation> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn of_client(&mut self, five_tuple: &FiveTuple) -> Option<&mut Allocation> {
        self.by_id.get_mut(self.by_five_tuple.get(five_tuple)?)
    }

    pub(super) fn of_relayed(&mut self, relayed: RelayedAddr) -> Option<&mut Allocation> {
        self.by_id.get_mut(self.by_relayed.get(&relayed)?)
    }

    pub(super) fn first(&self) -> Option<AllocationId> {
        self.by_id.keys().next().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Allocation> + '_ {
        self.by_id.values()
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

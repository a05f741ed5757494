//! Allocations (RFC 8656 section 6) and the one place where flows come and go: whatever changes when a
//! channel may carry data ends in [`Allocation::settle_flows`].

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use relay_common::clock::BootNanos;

use super::{
    address::{ChannelNumber, FiveTuple, PeerAddr, RelayedAddr},
    channel::{Channel, Channels},
    flow::{AllocationId, Direction, Flow, FlowId},
    output::{EndReason, Event, Output},
    permission::Permissions,
    stun::TransactionId,
    timers::{Timer, Timers},
    traffic::Traffic,
};

/// Where changes of an allocation show: deadlines and outputs.
#[derive(Debug, Default)]
pub(super) struct Effects {
    pub(super) timers: Timers,
    pub(super) outputs: VecDeque<Output>,
}

/// One client's relayed transport address and what it may be used for.
#[derive(Debug)]
pub(super) struct Allocation {
    pub(super) id: AllocationId,
    pub(super) five_tuple: FiveTuple,
    pub(super) relayed: RelayedAddr,
    pub(super) username: Arc<str>,
    /// Of the Allocate request that made it: the same again is a retransmission.
    pub(super) transaction_id: TransactionId,
    /// The client asked for an IPv6 address beside the IPv4 one.
    pub(super) wanted_ipv6: bool,
    pub(super) to_peer: Traffic,
    pub(super) to_client: Traffic,
    expires: BootNanos,
    permissions: Permissions,
    channels: Channels,
}

/// What makes an allocation.
pub(super) struct NewAllocation {
    pub(super) id: AllocationId,
    pub(super) five_tuple: FiveTuple,
    pub(super) relayed: RelayedAddr,
    pub(super) username: Arc<str>,
    pub(super) transaction_id: TransactionId,
    pub(super) wanted_ipv6: bool,
}

impl Allocation {
    /// An allocation without permissions and channels.
    pub(super) fn new(new: NewAllocation, expires: BootNanos, effects: &mut Effects) -> Self {
        let NewAllocation { id, five_tuple, relayed, username, transaction_id, wanted_ipv6 } = new;
        effects.timers.set(Timer::Allocation(id), None, Some(expires));
        effects.outputs.push_back(Output::Event(Event::AllocationCreated {
            allocation: id,
            five_tuple,
            relayed,
            username: username.to_string(),
        }));
        Self {
            id,
            five_tuple,
            relayed,
            username,
            transaction_id,
            wanted_ipv6,
            to_peer: Traffic::default(),
            to_client: Traffic::default(),
            expires,
            permissions: Permissions::default(),
            channels: Channels::default(),
        }
    }

    /// Moves the end of the allocation. Permissions and channels keep theirs (RFC 8656 section 8).
    pub(super) fn refresh(&mut self, expires: BootNanos, effects: &mut Effects) {
        effects.timers.set(Timer::Allocation(self.id), Some(self.expires), Some(expires));
        self.expires = expires;
        let numbers: Vec<_> = self.channels.iter().map(|channel| channel.number).collect();
        self.settle_flows(&numbers, effects);
    }

    /// Installs or prolongs a permission.
    pub(super) fn permit(&mut self, ip: IpAddr, until: BootNanos, effects: &mut Effects) {
        let (old, new) = self.permissions.install(ip, until);
        effects.timers.set(Timer::Permission(self.id, ip), old, Some(new));
        self.settle_flows(&self.channels.numbers_of_ip(ip), effects);
    }

    /// Binds or prolongs a channel, which [`Channels::check`] allowed, and its permission.
    pub(super) fn bind(
        &mut self,
        number: ChannelNumber,
        (peer, hairpin): (PeerAddr, bool),
        channel_until: BootNanos,
        permission_until: BootNanos,
        effects: &mut Effects,
    ) {
        let old = self.channels.bind(number, peer, hairpin, channel_until);
        effects.timers.set(Timer::Channel(self.id, number), old, Some(channel_until));
        // Settles the flows, for both ends have moved now.
        self.permit(peer.0.ip(), permission_until, effects);
    }

    /// The permission's deadline has come.
    pub(super) fn permission_expired(&mut self, ip: IpAddr, effects: &mut Effects) {
        self.permissions.remove(ip);
        self.settle_flows(&self.channels.numbers_of_ip(ip), effects);
    }

    /// The channel's deadline has come.
    pub(super) fn channel_expired(&mut self, number: ChannelNumber, effects: &mut Effects) {
        if let Some(channel) = self.channels.remove(number)
            && channel.flows_until.is_some()
        {
            self.emit_flows(&channel, None, effects);
        }
    }

    /// Ends the allocation and everything in it: flows first, then the relayed address. Its own deadline may
    /// have been taken out already.
    fn end(self, reason: EndReason, effects: &mut Effects) {
        if reason != EndReason::Expired {
            effects.timers.set(Timer::Allocation(self.id), Some(self.expires), None);
        }
        for (ip, expires) in self.permissions.iter() {
            effects.timers.set(Timer::Permission(self.id, ip), Some(expires), None);
        }
        for channel in self.channels.iter() {
            effects.timers.set(Timer::Channel(self.id, channel.number), Some(channel.expires), None);
            if channel.flows_until.is_some() {
                self.emit_flows(channel, None, effects);
            }
        }
        let Self { id: allocation, relayed, five_tuple, .. } = self;
        effects.outputs.push_back(Output::CloseRelayed { allocation, relayed });
        effects.outputs.push_back(Output::Event(Event::AllocationEnded { allocation, five_tuple, reason }));
    }

    /// Brings the installed flows of these channels in line: both directions until the earliest end of
    /// allocation, channel and permission, or none.
    fn settle_flows(&mut self, numbers: &[ChannelNumber], effects: &mut Effects) {
        for &number in numbers {
            let Some(channel) = self.channels.get_mut(number) else { continue };
            let permitted_until = self.permissions.expires(channel.peer.0.ip());
            let until = permitted_until.map(|until| until.min(channel.expires).min(self.expires));
            if channel.flows_until != until {
                channel.flows_until = until;
                let channel = *channel;
                self.emit_flows(&channel, until, effects);
            }
        }
    }

    fn emit_flows(&self, channel: &Channel, until: Option<BootNanos>, effects: &mut Effects) {
        for direction in [Direction::ToPeer, Direction::ToClient] {
            let id = FlowId {
                direction,
                five_tuple: self.five_tuple,
                relayed: self.relayed,
                peer: channel.peer,
                channel: channel.number,
            };
            effects.outputs.push_back(match until {
                Some(expires) => {
                    Output::InstallFlow(Flow { id, allocation: self.id, expires, hairpin: channel.hairpin })
                }
                None => Output::RemoveFlow(id),
            });
        }
    }

    pub(super) const fn expires(&self) -> BootNanos {
        self.expires
    }

    pub(super) const fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    pub(super) const fn channels(&self) -> &Channels {
        &self.channels
    }
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
        self.by_five_tuple.insert(allocation.five_tuple, allocation.id);
        self.by_relayed.insert(allocation.relayed, allocation.id);
        self.by_id.insert(allocation.id, allocation);
    }

    /// Ends an allocation and returns the relayed address that is free now.
    pub(super) fn end(
        &mut self,
        id: AllocationId,
        reason: EndReason,
        effects: &mut Effects,
    ) -> Option<RelayedAddr> {
        let allocation = self.by_id.remove(&id)?;
        self.by_five_tuple.remove(&allocation.five_tuple);
        self.by_relayed.remove(&allocation.relayed);
        let relayed = allocation.relayed;
        allocation.end(reason, effects);
        Some(relayed)
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

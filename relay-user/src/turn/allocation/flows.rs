//! The one place where flows come and go. A flow lasts as long as what it is made for, so what is installed is not
//! remembered: it follows from the allocation as it was before a change.

use std::net::IpAddr;

use relay_common::clock::BootNanos;

use super::{Allocation, Effects, index};
use crate::turn::{
    address::{Family, RelayedAddr},
    flow::{Direction, Flow, FlowForm, FlowId},
    meters::Meter,
    output::Output,
    own_addresses::OwnAddresses,
};

/// Flows of one relayed address, and when each that is installed ends.
pub(super) struct Stated {
    relayed: RelayedAddr,
    flows: Vec<(FlowForm, Option<BootNanos>)>,
}

impl Stated {
    /// Of a relayed address that is new.
    pub(super) fn nothing_of(relayed: RelayedAddr) -> Self {
        Self { relayed, flows: vec![(FlowForm::Allocation, None)] }
    }

    /// With a flow beside these that is not installed.
    pub(super) fn and_not(mut self, form: FlowForm) -> Self {
        self.flows.push((form, None));
        self
    }
}

impl Allocation {
    /// Every flow of a relayed address, as it is now.
    pub(super) fn stated_of_family(&self, family: Family) -> Option<Stated> {
        let relayed = self.relayed[index(family)].as_ref()?;
        let permissions = relayed.permissions.iter().map(|(peer, _)| FlowForm::Permission { peer });
        let channels = self.channels.of_family(family);
        let channels = channels.map(|(peer, number)| FlowForm::Channel { peer, number });
        self.stated(family, [FlowForm::Allocation].into_iter().chain(permissions).chain(channels))
    }

    /// Every flow to and from a peer's address, as it is now.
    pub(super) fn stated_of_ip(&self, ip: IpAddr) -> Option<Stated> {
        let channels = self.channels.of_ip(ip).map(|(peer, number)| FlowForm::Channel { peer, number });
        self.stated(Family::of(ip), [FlowForm::Permission { peer: ip }].into_iter().chain(channels))
    }

    /// Flows of these forms, as they are now.
    pub(super) fn stated(&self, family: Family, forms: impl IntoIterator<Item = FlowForm>) -> Option<Stated> {
        let relayed = self.relayed(family)?;
        let flows = forms.into_iter().map(|form| (form, self.flow_end(family, form))).collect();
        Some(Stated { relayed, flows })
    }

    /// Brings flows in line, after a change that may have concerned those that were `stated` before it: each
    /// is installed until its end, or there is none. What has not moved is not said again.
    pub(super) fn settle_flows(&self, stated: Stated, own: &OwnAddresses, effects: &mut Effects) {
        let Stated { relayed, flows } = stated;
        let meter = match self.meter {
            Meter::Unlimited => None,
            Meter::Shared(index) => Some(index),
            // The kernel could not hold it to the limit.
            Meter::Private(_) => return,
        };
        // A link-local address is one host's on each link, and a flow knows no links.
        if matches!(self.origin.five_tuple.client.0.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            return;
        }
        for (form, before) in flows {
            let end = self.flow_end(relayed.family(), form);
            if end == before {
                continue;
            }
            let (directions, peer) = match form {
                FlowForm::Allocation => (&[Direction::ToPeer][..], None),
                FlowForm::Permission { peer } => (&Direction::BOTH[..], Some(peer)),
                FlowForm::Channel { peer, .. } => (&Direction::BOTH[..], Some(peer.0.ip())),
            };
            for &direction in directions {
                let id = FlowId { direction, five_tuple: self.origin.five_tuple, relayed, form };
                effects.outputs.push_back(match end {
                    Some(expires) => Output::InstallFlow(Flow {
                        id,
                        allocation: self.origin.id,
                        expires,
                        hairpin: peer.and_then(|peer| own.hairpin(relayed, peer)),
                        meter,
                    }),
                    None => Output::RemoveFlow(id),
                });
            }
        }
    }

    /// When a flow ends that there is or might be now: with the first of what it is made for to end.
    fn flow_end(&self, family: Family, form: FlowForm) -> Option<BootNanos> {
        let relayed = self.relayed[index(family)].as_ref()?;
        let permitted = |peer| relayed.permissions.expires(peer).map(|end| end.min(relayed.expires));
        match form {
            FlowForm::Allocation => Some(relayed.expires),
            FlowForm::Permission { peer } => permitted(peer),
            FlowForm::Channel { peer, number } => {
                let channel = self.channels.get(number)?;
                permitted(peer.0.ip()).map(|end| end.min(channel.expires))
            }
        }
    }
}

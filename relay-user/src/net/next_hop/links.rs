//! A mirror of the host's links: which of them lead to an interface that the program is attached to, straight or as a
//! VLAN device above it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    iter,
};

use super::Tag;

/// A network interface, as far as next hops depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    /// `None`: not Ethernet.
    pub(super) mac: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// What IPv6 keeps to (a router may advertise less than the link can do).
    pub(super) ipv6_mtu: Option<u32>,
    /// Administratively up and with a carrier.
    pub(super) up: bool,
    /// Where a VLAN device is.
    pub(super) vlan: Option<Vlan>,
}

/// Bytes of a VLAN tag in a frame.
const TAG_LEN: u32 = 4;

/// The place of a VLAN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vlan {
    /// The link that it is above.
    pub(super) below: u32,
    pub(super) tag: Tag,
}

/// An attached interface and the tags of a VLAN on it, the outer first; none: the interface itself.
pub(super) type Port = (u32, [Option<Tag>; 2]);

/// How what the kernel sends by a link leaves the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Egress {
    pub(super) port: Port,
    pub(super) mac: [u8; 6],
    /// The smallest on the way.
    pub(super) mtu: u32,
    pub(super) scatter_gather: bool,
}

pub(super) struct Links {
    attached: BTreeSet<u32>,
    links: HashMap<u32, Link>,
    /// Interfaces that send frames in several pieces.
    scatter_gather: HashSet<u32>,
}

impl Links {
    pub(super) fn new(attached: BTreeSet<u32>) -> Self {
        Self { attached, links: HashMap::new(), scatter_gather: HashSet::new() }
    }

    /// Takes a link in and returns what it was before.
    pub(super) fn insert(&mut self, ifindex: u32, link: Link) -> Option<Link> {
        self.links.insert(ifindex, link)
    }

    pub(super) fn remove(&mut self, ifindex: u32) -> Option<Link> {
        self.scatter_gather.remove(&ifindex);
        self.links.remove(&ifindex)
    }

    /// Returns whether that is new.
    pub(super) fn set_scatter_gather(&mut self, ifindex: u32, scatter_gather: bool) -> bool {
        if scatter_gather {
            self.scatter_gather.insert(ifindex)
        } else {
            self.scatter_gather.remove(&ifindex)
        }
    }

    /// Returns whether that is new.
    pub(super) fn set_ipv6_mtu(&mut self, ifindex: u32, mtu: u32) -> bool {
        self.links.get_mut(&ifindex).is_some_and(|link| link.ipv6_mtu.replace(mtu) != Some(mtu))
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u32> {
        self.links.keys().copied()
    }

    pub(super) fn is_up(&self, ifindex: u32) -> bool {
        self.links.get(&ifindex).is_some_and(|link| link.up)
    }

    pub(super) fn is_attached(&self, ifindex: u32) -> bool {
        self.attached.contains(&ifindex)
    }

    /// Whether what is sent by link `top` passes `ifindex`.
    pub(super) fn leads_through(&self, top: u32, ifindex: u32) -> bool {
        self.chain(top).any(|link| link == ifindex)
    }

    /// The attached interface that what is sent by a link leaves by, and with which tags. `None`: by another one, with more
    /// than two tags, or with an inner one that the program does not write.
    pub(super) fn port(&self, top: u32) -> Option<Port> {
        let (mut ifindex, mut tags): Port = (top, [None; 2]);
        while !self.is_attached(ifindex) {
            let Vlan { below, tag } = self.links.get(&ifindex)?.vlan?;
            let [inner, innermost] = tags;
            if innermost.is_some() || inner.is_some_and(|inner| inner.service) {
                return None;
            }
            (ifindex, tags) = (below, [Some(tag), inner]);
        }
        Some((ifindex, tags))
    }

    /// Where and how what is sent by a link leaves the host, `None` while it does not.
    pub(super) fn egress(&self, top: u32, ipv6: bool) -> Option<Egress> {
        let port = self.port(top)?;
        let link = self.links.get(&top)?;
        let mut mtu = if ipv6 { link.ipv6_mtu.unwrap_or(u32::MAX) } else { u32::MAX };
        for ifindex in self.chain(top) {
            let link = self.links.get(&ifindex).filter(|link| link.up)?;
            mtu = mtu.min(link.mtu);
        }
        let (attached, [_, inner]) = port;
        if inner.is_some() {
            // Beside its MTU an interface has room for one tag: a longer frame is not redirected to it (linux/filter.h,
            // `xdp_ok_fwd_dev`), though the kernel itself would send it.
            mtu = mtu.min(self.links.get(&attached)?.mtu.saturating_sub(TAG_LEN));
        }
        Some(Egress { port, mac: link.mac?, mtu, scatter_gather: self.scatter_gather.contains(&port.0) })
    }

    /// The attached interfaces and the VLANs on them that the host takes frames from, with their MAC addresses.
    pub(super) fn ports(&self) -> HashMap<Port, [u8; 6]> {
        let takes_frames = |(ifindex, link): &(&u32, &Link)| link.up || self.is_attached(**ifindex);
        self.links
            .iter()
            .filter(takes_frames)
            .filter_map(|(ifindex, link)| Some((self.port(*ifindex)?, link.mac?)))
            .collect()
    }

    /// A link and those that it is above, down to an attached interface if there is one.
    fn chain(&self, top: u32) -> impl Iterator<Item = u32> {
        let below = |ifindex: &u32| {
            let vlan = self.links.get(ifindex).filter(|_| !self.is_attached(*ifindex))?.vlan;
            vlan.map(|vlan| vlan.below)
        };
        iter::successors(Some(top), below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIC: u32 = 3;
    const BOND: u32 = 9;
    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn link(mac: u8, vlan: Option<Vlan>) -> Link {
        let mac = Some([2, 0, 0, 0, 0, mac]);
        Link { name: "link".to_owned(), mac, mtu: 1500, ipv6_mtu: None, up: true, vlan }
    }

    const fn tag(id: u16) -> Tag {
        Tag { id, service: false }
    }

    const fn service(id: u16) -> Tag {
        Tag { id, service: true }
    }

    /// An attached interface and another one, with VLAN devices above: index, what it is above, its tag.
    fn links(vlans: &[(u32, u32, Tag)]) -> Links {
        let mut links = Links::new(BTreeSet::from([NIC]));
        links.insert(NIC, link(1, None));
        links.insert(BOND, link(9, None));
        for &(ifindex, below, tag) in vlans {
            links.insert(ifindex, link(ifindex as u8, Some(Vlan { below, tag })));
        }
        links
    }

    #[test]
    fn tags_are_those_on_the_way_down_the_outer_first() {
        let links = links(&[(20, NIC, service(7)), (21, 20, tag(100)), (22, NIC, tag(8))]);
        assert_eq!(links.port(NIC), Some((NIC, [None, None])));
        assert_eq!(links.port(20), Some((NIC, [Some(service(7)), None])));
        assert_eq!(links.port(21), Some((NIC, [Some(service(7)), Some(tag(100))])));
        assert_eq!(links.port(22), Some((NIC, [Some(tag(8)), None])));
        let egress = links.egress(21, false).unwrap();
        assert_eq!(egress.mac, [2, 0, 0, 0, 0, 21], "the VLAN device's own");
    }

    #[test]
    fn what_the_program_cannot_write_or_is_not_attached_to_is_no_egress() {
        let links = links(&[
            (20, NIC, tag(1)),
            (21, 20, tag(2)),
            (22, 21, tag(3)),
            (23, 20, service(4)),
            (24, 23, tag(5)),
            (30, BOND, tag(6)),
            (31, 99, tag(7)),
        ]);
        assert!(links.port(21).is_some());
        assert_eq!(links.port(22), None, "three tags");
        assert_eq!(links.port(23), None, "a service tag inside");
        for other in [24, 30, 31, BOND, 77] {
            assert_eq!(links.port(other), None, "{other}");
            assert_eq!(links.egress(other, false), None, "{other}");
        }
    }

    #[test]
    fn the_smallest_mtu_on_the_way_counts() {
        let mut links = links(&[(20, NIC, tag(1)), (21, 20, tag(2))]);
        links.insert(20, Link { mtu: 1450, ..link(20, Some(Vlan { below: NIC, tag: tag(1) })) });
        let mtu = |links: &Links, top, ipv6| links.egress(top, ipv6).unwrap().mtu;
        assert_eq!(
            [mtu(&links, NIC, false), mtu(&links, 20, false), mtu(&links, 21, false)],
            [1500, 1450, 1450]
        );
        assert!(links.set_ipv6_mtu(21, 1400));
        assert!(!links.set_ipv6_mtu(21, 1400));
        assert_eq!([mtu(&links, 21, true), mtu(&links, 21, false)], [1400, 1450]);
        links.set_ipv6_mtu(21, 9000);
        assert_eq!(mtu(&links, 21, true), 1450);
    }

    #[test]
    fn a_frame_with_two_tags_is_no_longer_than_what_may_be_redirected() {
        let mut links = links(&[(20, NIC, tag(1)), (21, 20, tag(2))]);
        let mtu = |links: &Links, top| links.egress(top, false).unwrap().mtu;
        assert_eq!([mtu(&links, NIC), mtu(&links, 20), mtu(&links, 21)], [1500, 1500, 1496]);
        links.insert(NIC, Link { mtu: 1504, ..link(1, None) });
        assert_eq!(mtu(&links, 21), 1500);
    }

    #[test]
    fn a_link_down_on_the_way_is_no_egress() {
        let mut links = links(&[(20, NIC, tag(1))]);
        links.insert(NIC, Link { up: false, ..link(1, None) });
        assert_eq!(links.egress(20, false), None);
    }

    #[test]
    fn what_the_host_takes_frames_from_is_its_interfaces_and_their_vlans_that_are_up() {
        let mut links = links(&[(20, NIC, tag(1)), (21, 20, tag(2)), (30, BOND, tag(3))]);
        let inner = (NIC, [Some(tag(1)), Some(tag(2))]);
        let outer = (NIC, [Some(tag(1)), None]);
        let itself = (NIC, [None, None]);
        let expected = [(itself, OURS), (outer, [2, 0, 0, 0, 0, 20]), (inner, [2, 0, 0, 0, 0, 21])];
        assert_eq!(links.ports(), HashMap::from(expected));
        links.insert(NIC, Link { up: false, ..link(1, None) });
        links.insert(20, Link { up: false, ..link(20, Some(Vlan { below: NIC, tag: tag(1) })) });
        links.remove(21);
        assert_eq!(links.ports(), HashMap::from([(itself, OURS)]));
    }

    #[test]
    fn scatter_gather_is_the_interfaces_below() {
        let mut links = links(&[(20, NIC, tag(1))]);
        assert!(!links.egress(20, false).unwrap().scatter_gather);
        assert!(links.set_scatter_gather(NIC, true));
        assert!(!links.set_scatter_gather(NIC, true));
        assert!(links.egress(20, false).unwrap().scatter_gather);
        links.remove(NIC);
        links.insert(NIC, link(1, None));
        assert!(!links.egress(20, false).unwrap().scatter_gather);
    }
}

//! Sessions that have ended and wait for their last counts.
//!
//! What the kernel forwarded of a removed flow is known only when no packet can be under way any more; the
//! record of a session is told then, so that it equals the counters.

use std::collections::VecDeque;

use relay_common::clock::BootNanos;

use crate::{control::status::SessionTraffic, datapath::Datapath, turn::SessionRecord};

/// The longest wait for a datapath's last counts, in nanoseconds: more than any needs, so that no session is
/// kept for ever.
const PATIENCE: BootNanos = 30_000_000_000;

/// In the order in which they ended.
#[derive(Debug, Default)]
pub(super) struct EndedSessions(VecDeque<SessionRecord>);

impl EndedSessions {
    pub(super) fn add(&mut self, record: SessionRecord) {
        self.0.push_back(record);
    }

    /// The next session whose counts are final: its record, and what the datapath forwarded for it.
    pub(super) fn take_final(
        &mut self,
        now: BootNanos,
        datapath: &mut dyn Datapath,
    ) -> Option<(SessionRecord, SessionTraffic)> {
        let first = self.0.front()?;
        if !datapath.traffic_is_final(first.allocation) && now < first.ended.saturating_add(PATIENCE) {
            return None;
        }
        self.take(datapath)
    }

    /// The next session, to be called when nothing is forwarded any more.
    pub(super) fn take(&mut self, datapath: &mut dyn Datapath) -> Option<(SessionRecord, SessionTraffic)> {
        let record = self.0.pop_front()?;
        let (to_peer, to_client) = datapath.allocation_traffic(record.allocation);
        datapath.forget_allocation(record.allocation);
        Some((record, SessionTraffic { to_peer, to_client }))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{Arc, atomic::AtomicU64},
    };

    use relay_common::meter::Rate;

    use super::*;
    use crate::{
        datapath::{Counts, InstallError},
        turn::{
            AllocationId, ClientAddr, EndReason, FiveTuple, Flow, FlowId, RelayedAddr, ServerAddr, Traffic,
            Transport,
        },
    };

    /// Forwards one packet for each allocation, and knows of some that no more will come.
    #[derive(Default)]
    struct Counted {
        is_final: Vec<AllocationId>,
        forgotten: Vec<AllocationId>,
    }

    impl Datapath for Counted {
        fn add_listener(&mut self, _: SocketAddr) -> Result<(), InstallError> {
            Ok(())
        }
        fn add_relayed(&mut self, _: RelayedAddr) -> Result<(), InstallError> {
            Ok(())
        }
        fn remove_relayed(&mut self, _: RelayedAddr) {}
        fn install_flow(&mut self, _: &Flow) -> Result<(), InstallError> {
            Ok(())
        }
        fn remove_flow(&mut self, _: &FlowId) {}
        fn tick(&mut self, _: BootNanos) {}
        fn counts(&mut self) -> Counts {
            Counts::default()
        }
        fn allocation_traffic(&mut self, allocation: AllocationId) -> (Traffic, Traffic) {
            (Traffic { packets: 1, bytes: allocation.0 }, Traffic::default())
        }
        fn traffic_is_final(&self, allocation: AllocationId) -> bool {
            self.is_final.contains(&allocation)
        }
        fn meters(&self) -> Option<Arc<dyn AsRef<[AtomicU64]> + Send + Sync>> {
            None
        }
        fn set_rate(&mut self, _: Rate) {}
        fn set_min_ipv6_mtu(&mut self, _: u16) {}
        fn forget_allocation(&mut self, allocation: AllocationId) {
            self.forgotten.push(allocation);
        }
        fn close(&mut self) {}
    }

    fn record(allocation: u64) -> SessionRecord {
        let address = "192.0.2.1:3478".parse().unwrap();
        SessionRecord {
            allocation: AllocationId(allocation),
            username: String::new(),
            realm: String::new(),
            five_tuple: FiveTuple {
                client: ClientAddr(address),
                server: ServerAddr(address),
                transport: Transport::Udp,
            },
            relayed: Vec::new(),
            peers: Vec::new(),
            peer_count: 0,
            started: 0,
            ended: 5,
            reason: EndReason::Deleted,
            to_peer: Traffic::default(),
            to_client: Traffic::default(),
        }
    }

    #[test]
    fn a_session_waits_for_its_last_counts_and_is_forgotten_with_them() {
        let mut datapath = Counted::default();
        let mut ended = EndedSessions::default();
        ended.add(record(1));
        ended.add(record(2));
        assert_eq!(ended.take_final(6, &mut datapath), None);
        assert!(datapath.forgotten.is_empty());

        datapath.is_final.push(AllocationId(1));
        let (first, fast) = ended.take_final(7, &mut datapath).unwrap();
        assert_eq!((first.allocation, fast.to_peer.bytes), (AllocationId(1), 1));
        assert_eq!(datapath.forgotten, [AllocationId(1)]);
        assert_eq!(ended.take_final(7, &mut datapath), None);
        let (second, _) = ended.take_final(5 + PATIENCE, &mut datapath).expect("not for ever");
        assert_eq!(second.allocation, AllocationId(2));
    }

    #[test]
    fn at_the_end_no_session_waits() {
        let mut datapath = Counted::default();
        let mut ended = EndedSessions::default();
        ended.add(record(1));
        assert!(ended.take(&mut datapath).is_some());
        assert!(ended.take(&mut datapath).is_none());
    }
}

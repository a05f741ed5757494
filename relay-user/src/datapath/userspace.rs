//! The datapath when no program is attached: every packet takes the slow path.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use relay_common::{clock::BootNanos, meter::Rate};

use super::{Counts, Datapath, InstallError, Traffic};
use crate::turn::{AllocationId, Flow, FlowId, RelayedAddr};

/// Forwards nothing, so that everything is a miss.
#[derive(Clone, Copy, Debug, Default)]
pub struct Userspace;

impl Datapath for Userspace {
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

    fn allocation_traffic(&mut self, _: AllocationId) -> (Traffic, Traffic) {
        Default::default()
    }

    fn traffic_is_final(&self, _: AllocationId) -> bool {
        true
    }

    fn meters(&self) -> Option<Arc<dyn AsRef<[AtomicU64]> + Send + Sync>> {
        None
    }

    fn set_rate(&mut self, _: Rate) {}

    fn set_min_ipv6_mtu(&mut self, _: u16) {}

    fn forget_allocation(&mut self, _: AllocationId) {}

    fn close(&mut self) {}
}

//! The datapath when no program is attached: every packet takes the slow path.

use std::net::SocketAddr;

use relay_common::clock::BootNanos;

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

    fn forget_allocation(&mut self, _: AllocationId) {}

    fn close(&mut self) {}
}

//! The XDP datapath: the program on every interface, its maps, and what keeps them right.

mod attach;
mod counters;
mod flows;
mod globals;
mod maps;
mod paths;
mod pin;
mod ports;
mod slots;
mod sys;
#[cfg(test)]
mod testing;
mod words;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
};

use aya::{
    maps::{MapData, PerCpuArray},
    programs::ProgramFd,
};
use relay_common::{clock::BootNanos, meter::Rate};

pub use self::pin::Pinned;
pub(super) use self::pin::{PinError, Pins, pinned, remove_leftovers};
use self::{
    attach::Attachment,
    counters::Counters,
    flows::FlowTable,
    globals::{Globals, boot_now},
    maps::{FlowMaps, Loaded},
    paths::PathTable,
    ports::Ports,
    words::Mapped,
};
use super::{
    AttachedInterface, Counts, Datapath, DatapathMode, InstallError, Traffic, XdpOptions,
    open::{Target, not_pinned},
    program::PROGRAM,
};
use crate::{
    net::next_hop::NextHops,
    turn::{AllocationId, Flow, FlowId, RelayedAddr},
};

/// Established flows forwarded by the program on every interface.
pub(super) struct Xdp {
    table: FlowTable<FlowMaps, Mapped, NextHops>,
    outcomes: PerCpuArray<MapData, u64>,
    globals: Globals<Mapped>,
    meters: Arc<Mapped>,
    program: ProgramFd,
    attachments: Vec<Attachment>,
    pins: Option<Pins>,
}

impl Xdp {
    /// Loads the program, attaches it to all targets and takes it into service. `warnings` gets what is less
    /// than asked for. The mode returned is the one it is attached in.
    ///
    /// # Errors
    /// Why there is no XDP, in words; nothing is left behind.
    pub(super) async fn open(
        options: &XdpOptions,
        targets: &[Target],
        pins: Option<Pins>,
        warnings: &mut Vec<String>,
    ) -> Result<(Self, DatapathMode), String> {
        if targets.is_empty() {
            return Err("no XDP: no interface was named (-i)".to_owned());
        }
        let object =
            PROGRAM.ok_or("no XDP: this build has no kernel program (`cargo xtask build` makes one)")?;
        let occupied =
            attach::occupied(targets).await.map_err(|error| format!("no XDP: netlink: {error}"))?;
        if !occupied.is_empty() {
            return Err(format!("no XDP: {}", occupied.join("; ")));
        }
        let loaded = maps::load(object, options.max_flows, targets)
            .map_err(|error| format!("no XDP: the kernel did not take the program: {error}"))?;

        let attach =
            |mode| attach::attach_all(&loaded.program, targets, mode).map(|attached| (attached, mode));
        let (attachments, mode) = match options.mode {
            DatapathMode::Auto => attach(DatapathMode::XdpNative).or_else(|reason| {
                warnings.push(reason);
                attach(DatapathMode::XdpGeneric)
            })?,
            mode => attach(mode)?,
        };
        let mut xdp = Self::start(loaded, attachments, options.max_flows).await?;
        if let Some(pins) = pins {
            match xdp.pin(&pins) {
                Ok(()) => xdp.pins = Some(pins),
                Err(error) => warnings.push(not_pinned(&error)),
            }
        }
        Ok((xdp, mode))
    }

    /// Publishes interfaces and starts to resolve next hops.
    async fn start(mut loaded: Loaded, attachments: Vec<Attachment>, max_flows: u32) -> Result<Self, String> {
        let ifindexes: BTreeSet<u32> =
            attachments.iter().map(|attachment| attachment.interface.ifindex).collect();
        for &ifindex in &ifindexes {
            loaded
                .tx_ports
                .insert(ifindex, ifindex, None, 0)
                .map_err(|error| format!("no XDP: interface {ifindex} cannot be sent on: {error}"))?;
        }
        let next_hops = NextHops::start(Box::new(loaded.publisher), ifindexes)
            .await
            .map_err(|error| format!("no XDP: next hops cannot be resolved: {error}"))?;
        Ok(Self {
            table: FlowTable::new(
                loaded.flows,
                Counters::new(loaded.flow_counters, loaded.slots),
                PathTable::new(next_hops, loaded.slots),
                Ports::new(loaded.port_classes),
                max_flows,
            ),
            outcomes: loaded.outcomes,
            globals: loaded.globals,
            meters: Arc::new(loaded.meters),
            program: loaded.program,
            attachments,
            pins: None,
        })
    }

    /// Pins program and links, so that established flows outlive the process until they expire.
    fn pin(&self, pins: &Pins) -> Result<(), PinError> {
        pins.pin("program", &self.program)?;
        // The links hold the program, and the program its maps.
        for Attachment { interface, link } in &self.attachments {
            pins.pin(&format!("{}{}-{}", pin::LINK, interface.ifindex, interface.name), link)?;
        }
        Ok(())
    }

    /// Where the program is attached.
    pub(super) fn interfaces(&self) -> Vec<AttachedInterface> {
        self.attachments.iter().map(|attachment| attachment.interface.clone()).collect()
    }
}

impl Datapath for Xdp {
    fn add_listener(&mut self, listener: SocketAddr) -> Result<(), InstallError> {
        self.table.add_listener(listener)
    }

    fn add_relayed(&mut self, relayed: RelayedAddr) -> Result<(), InstallError> {
        self.table.add_relayed(relayed.0)
    }

    fn remove_relayed(&mut self, relayed: RelayedAddr) {
        self.table.remove_relayed(relayed.0);
    }

    fn install_flow(&mut self, flow: &Flow) -> Result<(), InstallError> {
        self.table.install(flow, boot_now())
    }

    fn remove_flow(&mut self, flow: &FlowId) {
        self.table.remove(flow, boot_now());
    }

    fn tick(&mut self, now: BootNanos) {
        self.globals.set_clock();
        self.table.counters.sweep(now);
        self.table.paths.reclaim(now);
    }

    fn counts(&mut self) -> Counts {
        self.table.counters.sweep(boot_now());
        let mut counts = Counts { forwarded: self.table.counters.totals(), ..Counts::default() };
        maps::read_outcomes(&self.outcomes, &mut counts);
        counts
    }

    fn allocation_traffic(&mut self, allocation: AllocationId) -> (Traffic, Traffic) {
        self.table.counters.traffic(allocation)
    }

    fn traffic_is_final(&self, allocation: AllocationId) -> bool {
        self.table.counters.is_settled(allocation)
    }

    fn meters(&self) -> Option<Arc<dyn AsRef<[AtomicU64]> + Send + Sync>> {
        Some(Arc::<Mapped>::clone(&self.meters))
    }

    fn set_rate(&mut self, rate: Rate) {
        self.globals.set_rate(rate);
    }

    fn set_min_ipv6_mtu(&mut self, mtu: u16) {
        self.globals.set_min_ipv6_mtu(mtu);
    }

    fn forget_allocation(&mut self, allocation: AllocationId) {
        self.table.counters.forget(allocation);
    }

    fn close(&mut self) {
        attach::detach_all(&self.attachments);
        self.attachments.clear();
        self.pins = None;
        self.table.paths.stop();
    }
}

impl Drop for Xdp {
    fn drop(&mut self) {
        self.close();
    }
}

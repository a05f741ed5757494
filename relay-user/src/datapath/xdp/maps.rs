//! Loading the program and taking its maps.

use std::io;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray, xdp::DevMapHash},
    programs::{ProgramError, ProgramFd, Xdp},
};
use relay_common::{
    flow::{FlowEntry, FlowKeyV4, FlowKeyV6},
    globals,
    interface::{Interface, VlanKey},
    maps,
    outcome::{Outcome, Verdict},
    path::Path,
    port_class,
};

use super::{
    super::{
        Counts,
        encode::{self, Key, Way},
        open::Target,
        program,
    },
    flows::FlowMap,
    globals::Globals,
    slots::with_room_for_retired,
    words::Mapped,
};
use crate::net::next_hop::{NextHop, Publish, Tag};

/// Entries of a flow map beside the flows: listeners and relayed addresses. With more than one relayed
/// address in full use, the rest is room that flows leave.
const ENDPOINTS: u32 = 1 << 16;

/// The loaded program and its maps.
pub(super) struct Loaded {
    pub(super) program: ProgramFd,
    pub(super) flows: FlowMaps,
    pub(super) flow_counters: Mapped,
    /// Counters there are, and paths.
    pub(super) slots: u32,
    pub(super) meters: Mapped,
    pub(super) port_classes: Mapped,
    pub(super) globals: Globals<Mapped>,
    pub(super) outcomes: PerCpuArray<MapData, u64>,
    pub(super) tx_ports: DevMapHash<MapData>,
    pub(super) publisher: Publisher,
}

/// Loads the program with room for `max_flows` and for these interfaces.
///
/// # Errors
/// In words: the verifier's answer, a missing privilege, a map that is too large.
pub(super) fn load(object: &[u8], max_flows: u32, targets: &[Target]) -> Result<Loaded, String> {
    let slots = with_room_for_retired(max_flows);
    // Each allocation has a flow at least, so it is not the meters that run out.
    let meters = max_flows.saturating_add(1);
    let max_ifindex = targets.iter().map(|target| target.ifindex).max().unwrap_or_default();
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(maps::FLOWS_V4, max_flows.saturating_add(ENDPOINTS))
        .map_max_entries(maps::FLOWS_V6, max_flows.saturating_add(ENDPOINTS))
        .map_max_entries(maps::FLOW_COUNTERS, slots)
        .map_max_entries(maps::METERS, meters)
        .map_max_entries(maps::PATHS, slots)
        .map_max_entries(maps::INTERFACES, max_ifindex.saturating_add(1))
        .map_max_entries(maps::TX_PORTS, u32::try_from(targets.len()).unwrap_or(u32::MAX).max(1))
        .load(object)
        .map_err(|error| {
            let text = in_full(&error);
            if is_too_large(&error) {
                format!("{text}: no room for {max_flows} flows: lower max_flows")
            } else {
                text
            }
        })?;
    // Before any map is taken: the program holds them by number until it is loaded.
    let program = load_program(&mut ebpf).map_err(|error| in_full(&error))?;
    Ok(Loaded {
        program,
        flows: FlowMaps {
            v4: take(&mut ebpf, maps::FLOWS_V4, HashMap::try_from)?,
            v6: take(&mut ebpf, maps::FLOWS_V6, HashMap::try_from)?,
        },
        flow_counters: map_words(&mut ebpf, maps::FLOW_COUNTERS, slots)?,
        slots,
        meters: map_words(&mut ebpf, maps::METERS, meters)?,
        port_classes: map_words(&mut ebpf, maps::PORT_CLASSES, port_class::WORDS)?,
        globals: Globals::new(map_words(&mut ebpf, maps::GLOBALS, globals::word::COUNT)?),
        outcomes: take(&mut ebpf, maps::OUTCOMES, PerCpuArray::try_from)?,
        tx_ports: take(&mut ebpf, maps::TX_PORTS, DevMapHash::try_from)?,
        publisher: Publisher {
            paths: take(&mut ebpf, maps::PATHS, Array::try_from)?,
            interfaces: take(&mut ebpf, maps::INTERFACES, Array::try_from)?,
            vlans: take(&mut ebpf, maps::VLANS, HashMap::try_from)?,
        },
    })
}

fn load_program(ebpf: &mut Ebpf) -> Result<ProgramFd, ProgramError> {
    let program: &mut Xdp = ebpf
        .program_mut(program::PROGRAM_NAME)
        .expect("the program is in its own object: program::PROGRAM_NAME")
        .try_into()?;
    program.load()?;
    Ok(program.fd()?.try_clone()?)
}

/// Adds the packets that were not forwarded to `counts`, by reason.
pub(super) fn read_outcomes(outcomes: &PerCpuArray<MapData, u64>, counts: &mut Counts) {
    for &outcome in Outcome::ALL {
        let packets = match outcomes.get(&(outcome as u32), 0) {
            Ok(per_cpu) => per_cpu.iter().sum(),
            Err(error) => {
                tracing::error!("cannot read the count of {}: {error}", outcome.name());
                continue;
            }
        };
        match outcome.verdict() {
            Verdict::Punt => counts.punts.push((outcome.name(), packets)),
            Verdict::Drop => counts.drops.push((outcome.name(), packets)),
        }
    }
}

/// Writes what the next-hop thread finds out.
pub(super) struct Publisher {
    paths: Array<MapData, Path>,
    interfaces: Array<MapData, Interface>,
    vlans: HashMap<MapData, VlanKey, Interface>,
}

impl Publisher {
    fn set_path(&mut self, index: u32, path: Path) {
        if let Err(error) = self.paths.set(index, path, 0) {
            tracing::error!("cannot publish path {index}: {error}");
        }
    }
}

impl Publish for Publisher {
    fn path(&mut self, index: u32, way: Way, next_hop: Option<NextHop>) {
        self.set_path(index, encode::path(index, way, next_hop.as_ref()));
    }

    fn no_path(&mut self, index: u32) {
        // Nothing verifies that is not sealed.
        self.set_path(index, Path::default());
    }

    fn interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>) {
        let entry = mac.map_or(Interface::default(), encode::interface);
        if let Err(error) = self.interfaces.set(ifindex, entry, 0) {
            tracing::error!("cannot publish the MAC address of interface {ifindex}: {error}");
        }
    }

    fn vlan(&mut self, ifindex: u32, tags: [Option<Tag>; 2], mac: Option<[u8; 6]>) {
        let key = encode::vlan_key(ifindex, tags);
        let written = match mac {
            Some(mac) => persist(|| self.vlans.insert(key, encode::interface(mac), 0)),
            None => persist(|| self.vlans.remove(&key)),
        };
        if let Err(error) = written {
            tracing::error!("cannot publish VLAN {tags:?} on interface {ifindex}: {error}");
        }
    }
}

/// The flow table in the kernel: a map for each family that packets come in by.
pub(super) struct FlowMaps {
    v4: HashMap<MapData, FlowKeyV4, FlowEntry>,
    v6: HashMap<MapData, FlowKeyV6, FlowEntry>,
}

impl FlowMap for FlowMaps {
    fn insert(&mut self, key: &Key, entry: &FlowEntry) -> io::Result<()> {
        persist(|| match key {
            Key::V4(key) => self.v4.insert(key, entry, 0),
            Key::V6(key) => self.v6.insert(key, entry, 0),
        })
    }

    fn remove(&mut self, key: &Key) -> io::Result<()> {
        persist(|| match key {
            Key::V4(key) => self.v4.remove(key),
            Key::V6(key) => self.v6.remove(key),
        })
    }
}

/// Repeats what the kernel refused for the moment only: a hash map without preallocation runs out of cached
/// elements in a burst of updates (`ENOMEM`; they are refilled from an interrupt), and a bucket may be locked
/// (`EBUSY`). The kernel's own tests do the same (tools/testing/selftests/bpf/test_maps.c, `can_repeat`).
fn persist(mut update: impl FnMut() -> Result<(), MapError>) -> io::Result<()> {
    const ATTEMPTS: u32 = 100;
    let mut attempt = 0;
    loop {
        let error = match update() {
            Ok(()) => return Ok(()),
            Err(error) => into_io(error),
        };
        attempt += 1;
        let passing = matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EBUSY | libc::EAGAIN));
        if !passing || attempt == ATTEMPTS {
            return Err(error);
        }
        std::thread::yield_now();
    }
}

fn into_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::KeyNotFound => io::Error::from_raw_os_error(libc::ENOENT),
        error => io::Error::other(error),
    }
}

fn take<T>(
    ebpf: &mut Ebpf,
    name: &str,
    typed: impl FnOnce(aya::maps::Map) -> Result<T, MapError>,
) -> Result<T, String> {
    let map = ebpf.take_map(name).ok_or_else(|| format!("no map {name} in the object"))?;
    typed(map).map_err(|error| format!("map {name}: {error}"))
}

fn map_words(ebpf: &mut Ebpf, name: &str, len: u32) -> Result<Mapped, String> {
    let map = take(ebpf, name, |map| match map {
        aya::maps::Map::Array(data) => Ok(data),
        _ => Err(MapError::InvalidMapType { map_type: 0 }),
    })?;
    Mapped::new(map.fd(), len).map_err(|error| format!("map {name}: mmap: {error}"))
}

/// Whether the kernel has not the memory for a map, or no map may have so many entries.
fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::E2BIG)))
}

/// An error with its causes, of which aya shows only the first.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        if error.downcast_ref().is_some_and(denied) {
            return "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are needed".to_owned();
        }
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

//! The first screen of `cargo xtask run`: what this host's NICs would need for the fast path, and the command
//! that would serve them. Changes nothing.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::process;

/// Drivers that run XDP programs natively and send redirected frames, with the first kernel that has it where
/// that is later than 5.10 (`NETDEV_XDP_ACT_NDO_XMIT` and its ancestors in the kernel's drivers/net).
const NATIVE_DRIVERS: &[(&str, Option<(u32, u32)>)] = &[
    ("atlantic", Some((5, 19))),
    ("bnxt_en", None),
    ("cpsw", None),
    ("ena", Some((5, 11))),
    ("fec", Some((6, 2))),
    ("fsl_dpa", Some((5, 11))),
    ("fsl_dpaa2_eth", None),
    ("fsl_enetc", Some((5, 13))),
    ("gve", Some((6, 4))),
    ("hv_netvsc", Some((5, 19))),
    ("i40e", None),
    ("ice", None),
    ("igb", None),
    ("igc", Some((5, 13))),
    ("ixgbe", None),
    ("mana", Some((6, 0))),
    ("mlx5_core", None),
    ("mvneta", None),
    ("mvpp2", None),
    ("netsec", None),
    ("qede", None),
    ("rvu_nicpf", Some((5, 16))),
    ("sfc", None),
    ("virtio_net", None),
    ("vmxnet3", Some((6, 6))),
    ("vif", None),
];

/// Drivers that want as many spare transmit queues again for XDP, and refuse the program otherwise.
const WANTS_HALF_OF_THE_QUEUES: &[&str] = &["ena", "gve"];

/// The largest MTU whose frames fit one page with XDP's headroom, which most drivers insist on.
const MAX_MTU: u32 = 3498;

/// Prints the report.
pub fn print() -> anyhow::Result<()> {
    print!("{}", report(&nics()?, kernel_version()));
    Ok(())
}

/// A network interface with hardware, or a hypervisor, behind it.
#[derive(Clone, Debug)]
struct Nic {
    name: String,
    driver: String,
    mtu: u32,
    is_up: bool,
    addresses: Vec<(Ipv4Addr, u8)>,
    rx_queues: usize,
    tx_queues: usize,
    /// The most queues that it can have, if it says.
    max_queues: Option<usize>,
    large_receive_offload: bool,
    program: Option<Program>,
}

#[derive(Clone, Debug, Deserialize)]
struct Program {
    id: u32,
    name: Option<String>,
}

fn report(nics: &[Nic], kernel: (u32, u32)) -> String {
    let mut text = String::from("This host's NICs (nothing is changed):\n");
    for nic in nics {
        let addresses = match nic.addresses.as_slice() {
            [] => "no IPv4 address".to_owned(),
            some => some.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect::<Vec<_>>().join(", "),
        };
        text += &format!(
            "  {}: driver {}, {} rx and {} tx queues, MTU {}, {}, {addresses}\n",
            nic.name,
            nic.driver,
            nic.rx_queues,
            nic.tx_queues,
            nic.mtu,
            if nic.is_up { "up" } else { "down" },
        );
        for line in readiness(nic, kernel) {
            text += &format!("    {line}\n");
        }
    }
    if nics.is_empty() {
        text += "  none\n";
    }
    text + &serving_command(nics)
}

/// Whether the NIC is ready for native XDP, and what would make it so.
fn readiness(nic: &Nic, (major, minor): (u32, u32)) -> Vec<String> {
    let Nic { name, driver, .. } = nic;
    let mut obstacles = Vec::new();
    match NATIVE_DRIVERS.iter().find(|(native, _)| native == driver) {
        None => {
            return vec![format!(
                "native XDP: no, {driver} is not known to have it; the fast path runs in generic mode, slower"
            )];
        }
        Some((_, Some((since_major, since_minor)))) if (major, minor) < (*since_major, *since_minor) => {
            obstacles.push(format!("{driver} has it from Linux {since_major}.{since_minor} on"));
        }
        Some(_) => {}
    }
    if let Some(Program { id, name: program }) = &nic.program {
        let program = program.as_deref().unwrap_or("without a name");
        obstacles.push(format!(
            "XDP program {id} ({program}) is attached and will be left alone: \
             `ip link set {name} xdp off` if nothing needs it"
        ));
    }
    if nic.mtu > MAX_MTU {
        obstacles.push(format!("MTU {} is above {MAX_MTU}: `ip link set {name} mtu 1500`", nic.mtu));
    }
    if nic.large_receive_offload {
        obstacles.push(format!("large receive offload is on: `ethtool -K {name} lro off`"));
    }
    if let Some(max) = nic.max_queues
        && WANTS_HALF_OF_THE_QUEUES.contains(&driver.as_str())
        && nic.tx_queues * 2 > max
    {
        let half = (max / 2).max(1);
        obstacles
            .push(format!("{driver} wants half of its {max} queues: `ethtool -L {name} combined {half}`"));
    }
    let mut lines = if obstacles.is_empty() {
        vec!["native XDP: ready".to_owned()]
    } else {
        std::iter::once("native XDP: not yet".to_owned()).chain(obstacles).collect()
    };
    if let Some(max) = nic.max_queues
        && driver == "virtio_net"
    {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        if nic.tx_queues + cpus > max {
            lines.push(format!(
                "has no transmit queue to spare for each of {cpus} CPUs (at most {max}): sending takes a lock, \
                 slower; the hypervisor can give it more queues"
            ));
        }
    }
    lines
}

/// The command that would serve this host.
fn serving_command(nics: &[Nic]) -> String {
    let usable: Vec<_> = nics.iter().filter(|nic| nic.is_up && !nic.addresses.is_empty()).collect();
    if usable.is_empty() {
        return "No NIC is up with an IPv4 address, so there is none to serve.\n".to_owned();
    }
    let interfaces: String = usable.iter().map(|nic| format!(" -i {}", nic.name)).collect();
    let mut text = format!(
        "To serve {} (choose your own user and password):\n  cargo xtask run --{interfaces} --user demo:{}\n",
        if usable.len() == 1 { "it" } else { "them" },
        password(),
    );
    let private = usable.iter().flat_map(|nic| &nic.addresses).find(|(address, _)| address.is_private());
    if let Some((address, _)) = private {
        text += &format!(
            "  {address} is private: for clients on the Internet add --external-ip PUBLIC/{address}, \
             PUBLIC being the address that they reach it at\n"
        );
    }
    text
}

/// A password that nobody else has; the zero value of a failed read would not do.
fn password() -> String {
    use std::io::Read;
    let mut bytes = [0; 8];
    match std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        Err(_) => "PASSWORD".to_owned(),
    }
}

fn nics() -> anyhow::Result<Vec<Nic>> {
    let links = process::output(Command::new("ip").args(["-json", "-details", "address", "show"]))?;
    let links: Vec<Link> = serde_json::from_str(&links).context("unexpected output of ip")?;
    Ok(links.into_iter().filter_map(nic).collect())
}

/// An interface as `ip -json address` shows it.
#[derive(Debug, Deserialize)]
struct Link {
    ifname: String,
    mtu: u32,
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
    xdp: Option<Xdp>,
}

#[derive(Debug, Deserialize)]
struct Address {
    family: String,
    local: Option<String>,
    prefixlen: u8,
}

#[derive(Debug, Deserialize)]
struct Xdp {
    prog: Option<Program>,
}

/// The interface, if a device is behind it.
fn nic(link: Link) -> Option<Nic> {
    let directory = Path::new("/sys/class/net").join(&link.ifname);
    let driver = std::fs::read_link(directory.join("device/driver")).ok()?;
    let queues = |direction: &str| {
        let entries = std::fs::read_dir(directory.join("queues")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(direction)).count()
    };
    let ethtool = |option: &str| {
        process::output(Command::new("ethtool").args([option, &link.ifname])).unwrap_or_default()
    };
    let ipv4 = |address: &Address| {
        (address.family == "inet").then_some(())?;
        Some((address.local.as_ref()?.parse().ok()?, address.prefixlen))
    };
    Some(Nic {
        driver: driver.file_name()?.to_string_lossy().into_owned(),
        mtu: link.mtu,
        is_up: link.flags.iter().any(|flag| flag == "UP"),
        addresses: link.addr_info.iter().filter_map(ipv4).collect(),
        rx_queues: queues("rx-"),
        tx_queues: queues("tx-"),
        max_queues: max_queues(&ethtool("-l")),
        large_receive_offload: ethtool("-k").contains("large-receive-offload: on"),
        program: link.xdp.and_then(|xdp| xdp.prog),
        name: link.ifname,
    })
}

/// The greatest number of combined queues in the output of `ethtool -l`.
fn max_queues(channels: &str) -> Option<usize> {
    channels.lines().find_map(|line| line.strip_prefix("Combined:")?.trim().parse().ok())
}

/// The running kernel's version, as far as it matters.
fn kernel_version() -> (u32, u32) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic() -> Nic {
        Nic {
            name: "eth0".to_owned(),
            driver: "mlx5_core".to_owned(),
            mtu: 1500,
            is_up: true,
            addresses: vec![(Ipv4Addr::new(203, 0, 113, 5), 24)],
            rx_queues: 4,
            tx_queues: 4,
            max_queues: Some(8),
            large_receive_offload: false,
            program: None,
        }
    }

    #[test]
    fn ready_nic_is_said_to_be_ready() {
        assert_eq!(readiness(&nic(), (6, 1)), ["native XDP: ready"]);
    }

    #[test]
    fn each_obstacle_comes_with_its_remedy() {
        let nic = Nic {
            driver: "ena".to_owned(),
            mtu: 9001,
            tx_queues: 8,
            large_receive_offload: true,
            program: Some(Program { id: 42, name: Some("xdp_cilium".to_owned()) }),
            ..nic()
        };
        let lines = readiness(&nic, (5, 10)).join("\n");
        for expected in [
            "not yet",
            "5.11",
            "program 42 (xdp_cilium)",
            "`ip link set eth0 mtu 1500`",
            "`ethtool -K eth0 lro off`",
            "`ethtool -L eth0 combined 4`",
        ] {
            assert!(lines.contains(expected), "{expected} is not in\n{lines}");
        }
    }

    #[test]
    fn unknown_driver_runs_generic() {
        let nic = Nic { driver: "e1000e".to_owned(), ..nic() };
        assert!(readiness(&nic, (6, 1))[0].contains("generic"));
    }

    #[test]
    fn report_ends_in_a_command_for_the_nics_that_can_be_served() {
        let down = Nic { name: "eth1".to_owned(), is_up: false, ..nic() };
        let inside =
            Nic { name: "eth2".to_owned(), addresses: vec![(Ipv4Addr::new(10, 0, 0, 5), 24)], ..nic() };
        let text = report(&[nic(), down, inside], (6, 1));
        assert!(text.contains("\n  cargo xtask run -- -i eth0 -i eth2 --user demo:"), "{text}");
        assert!(text.contains("--external-ip PUBLIC/10.0.0.5"), "{text}");
    }

    #[test]
    fn queues_are_read_from_ethtool() {
        let text = "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\nCombined:\t63\n\
                    Current hardware settings:\nRX:\t\tn/a\nCombined:\t4\n";
        assert_eq!(max_queues(text), Some(63));
        assert_eq!(max_queues("netlink error: Operation not supported\n"), None);
    }
}

//! What a NIC is and whether it is ready for XDP in native mode, as far as can be told without changing it.

use std::{ffi::CStr, io, os::fd::AsRawFd};

use futures_util::TryStreamExt;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp};
use socket2::{Domain, Socket, Type};

/// Drivers with a native XDP hook (`ndo_bpf` in Linux 6.12), as `ethtool -i` names them.
const NATIVE_DRIVERS: &[&str] = &[
    "am65-cpsw-nuss",
    "atlantic",
    "bnxt_en",
    "bonding",
    "cpsw",
    "cpsw-switch",
    "dwmac",
    "ena",
    "fec",
    "fsl_dpa",
    "fsl_dpaa2_eth",
    "fsl_enetc",
    "fsl_enetc_vf",
    "funeth",
    "gve",
    "hv_netvsc",
    "i40e",
    "ice",
    "icssg-prueth",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "lan966x-switch",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mtk_soc_eth",
    "mvneta",
    "mvpp2",
    "netdevsim",
    "netsec",
    "nfp",
    "nicvf",
    "qede",
    "rvu-nicpf",
    "rvu-nicvf",
    "sfc",
    "sfc_siena",
    "st_gmac",
    "stmmac",
    "tsnep",
    "tun",
    VETH,
    "vif",
    "virtio_net",
    "vmxnet3",
];

/// The driver of virtual Ethernet pairs.
const VETH: &str = "veth";

/// The largest MTU that leaves room in a 4 KiB page for headroom, Ethernet header and `skb_shared_info`; more
/// makes most drivers refuse a program.
pub const NATIVE_MTU_MAX: u32 = 3498;

/// One NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its driver, as `ethtool -i` names it.
    pub driver: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The id of an XDP program that is attached already.
    pub xdp_program: Option<u32>,
}

impl Nic {
    /// Looks at the interface of this name in the caller's network namespace. Needs a tokio runtime.
    pub async fn read(name: &str) -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        let connection = tokio::spawn(connection);
        let link = handle.link().get().match_name(name).execute().try_next().await;
        connection.abort();
        let link = link.map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { driver: driver(name), ..Self::from(&link) })
    }

    /// Whether the driver is known to run XDP programs itself.
    pub fn has_native_driver(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| NATIVE_DRIVERS.contains(&driver))
    }
}

/// What the operator must see to where the program is in native mode on these interfaces. `None`: nothing.
///
/// A veth hands what XDP sends to its other end only while that has its NAPI, which GRO or a program makes
/// (`veth_xdp_xmit` in drivers/net/veth.c).
pub fn veth_remedy<'a>(interfaces: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let veths =
        interfaces.into_iter().filter(|name| driver(name).as_deref() == Some(VETH)).collect::<Vec<_>>();
    (!veths.is_empty()).then(|| {
        format!(
            "{}: a veth's other end must have GRO on, set after it is up (`ethtool -K DEV gro on` there), or an XDP \
             program of its own; else the kernel drops what is forwarded to it, without a word but for xdp drops \
             in `ethtool -S`",
            veths.join(", ")
        )
    })
}

impl From<&LinkMessage> for Nic {
    fn from(link: &LinkMessage) -> Self {
        let mut nic =
            Self { driver: None, up: link.header.flags.contains(LinkFlags::Up), mtu: 0, xdp_program: None };
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(mtu) => nic.mtu = *mtu,
                LinkAttribute::Xdp(xdp) => {
                    nic.xdp_program = xdp.iter().find_map(|xdp| match xdp {
                        LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) if *id != 0 => {
                            Some(*id)
                        }
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        nic
    }
}

/// `struct ethtool_drvinfo` (include/uapi/linux/ethtool.h).
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    version: [u8; 32],
    firmware: [u8; 32],
    bus: [u8; 32],
    expansion_rom: [u8; 32],
    reserved: [u8; 12],
    counts: [u32; 5],
}

/// `ETHTOOL_GDRVINFO` (include/uapi/linux/ethtool.h).
const GET_DRIVER_INFO: u32 = 3;

/// The driver's name by the ethtool ioctl, which answers for the caller's network namespace, as sysfs may not.
fn driver(name: &str) -> Option<String> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).ok()?;
    let mut info = DriverInfo {
        command: GET_DRIVER_INFO,
        driver: [0; 32],
        version: [0; 32],
        firmware: [0; 32],
        bus: [0; 32],
        expansion_rom: [0; 32],
        reserved: [0; 12],
        counts: [0; 5],
    };
    // SAFETY: all zeroes are a valid ifreq.
    let mut request = unsafe { std::mem::zeroed::<libc::ifreq>() };
    if name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // SAFETY: the name ends in a zero, and `info` is the structure that this command fills in; both live
    // through the call.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) };
    if result != 0 {
        return None;
    }
    let name = CStr::from_bytes_until_nul(&info.driver).ok()?.to_str().ok()?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interface_is_read_and_a_missing_one_told() {
        let lo = Nic::read("lo").await.unwrap();
        assert!(lo.mtu > 0 && lo.xdp_program.is_none() && !lo.has_native_driver(), "{lo:?}");
        assert!(Nic::read("no-such-nic").await.is_err());
    }
}

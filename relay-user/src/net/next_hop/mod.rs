//! Next hops: where packets from one of our addresses to a destination leave, kept up to date.
//!
//! The program forwards by index into a table of next hops; this module fills the table in. It asks the
//! kernel for route and neighbour as the kernel itself would choose them, watches links, routes, rules,
//! addresses and neighbours for changes, and has the kernel keep the neighbours resolved. Whatever it
//! cannot resolve is published as unresolved, which makes the program punt.
//!
//! All of it happens on a thread of its own: a netlink request waits for the kernel's RTNL lock, which a
//! driver reset may hold for seconds, and media on the slow path must not wait with it.

mod links;
mod netdev;
mod netlink;
mod read;
mod resolver;

use std::{collections::BTreeSet, io, sync::mpsc as std_mpsc, thread};

use tokio::sync::{mpsc, oneshot};

use crate::datapath::encode::Way;

/// How packets to a destination leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Egress interface: below any VLAN device, the one that packets are redirected to.
    pub ifindex: u32,
    /// Largest IP packet in bytes: the route's MTU, but never more than the interface's.
    pub mtu: u32,
    /// MAC address of the gateway, or of the destination itself.
    pub destination_mac: [u8; 6],
    /// MAC address of the egress interface (of the VLAN device, where it is one).
    pub source_mac: [u8; 6],
    /// VLAN tags to send with, the outer first. `[None, Some(_)]` does not occur.
    pub tags: [Option<Tag>; 2],
    /// Whether the egress interface sends frames in several pieces of memory that were redirected to it
    /// (`NETDEV_XDP_ACT_NDO_XMIT_SG`).
    pub scatter_gather: bool,
}

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// VLAN identifier: 1 to 4094.
    pub id: u16,
    /// EtherType 0x88a8 (IEEE 802.1ad), not 0x8100. Only an outer tag's is minded.
    pub service: bool,
}

/// Where resolved next hops and interface addresses go. Called on the resolver's thread.
pub trait Publish: Send {
    /// The path at `index` leads this way, and leaves by this next hop. `None`: unresolved, or internal.
    fn path(&mut self, index: u32, way: Way, next_hop: Option<NextHop>);
    /// The path at `index` leads nowhere any more. Until it is published again, no packet may follow it: its next flow
    /// is installed before that.
    fn no_path(&mut self, index: u32);
    /// An attached interface has this MAC address. `None`: it is gone.
    fn interface(&mut self, ifindex: u32, mac: Option<[u8; 6]>);
    /// The VLAN device with these tags, the outer first, on an attached interface has this MAC address. `None`: it is
    /// gone.
    fn vlan(&mut self, ifindex: u32, tags: [Option<Tag>; 2], mac: Option<[u8; 6]>);
}

/// The resolver's handle. Dropping it is [`NextHops::stop`].
#[derive(Debug)]
pub struct NextHops {
    commands: Option<mpsc::UnboundedSender<Command>>,
    released: std_mpsc::Receiver<u32>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the handle asks of the thread.
#[derive(Debug)]
enum Command {
    Track { index: u32, way: Way },
    Release { index: u32 },
}

impl NextHops {
    /// Starts the resolver in the calling thread's network namespace. Only next hops that leave through one of
    /// the interfaces `attached` (by ifindex) are ever published as resolved. When it returns, the interfaces'
    /// addresses have been published.
    ///
    /// # Errors
    /// When the thread cannot be made or netlink refuses.
    pub async fn start(publish: Box<dyn Publish>, attached: BTreeSet<u32>) -> io::Result<Self> {
        let (commands, receiver) = mpsc::unbounded_channel();
        let (releases, released) = std_mpsc::channel();
        let (started, ready) = oneshot::channel();
        let thread = thread::Builder::new().name("next-hops".to_owned()).spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(started.send(Err(error))),
            };
            runtime.block_on(netlink::run(publish, attached, receiver, releases, started));
        })?;
        let handle = Self { commands: Some(commands), released, thread: Some(thread) };
        match ready.await {
            Ok(result) => result.map(|()| handle),
            Err(_) => Err(io::Error::other("the next-hop thread ended while starting")),
        }
    }

    /// Publishes a path at `index`. If it leads out of the host, from one of our addresses, its next hop is resolved and
    /// kept up to date until it is released. The index must be new or have been [`released`](Self::released).
    pub fn track(&self, index: u32, way: Way) {
        self.send(Command::Track { index, way });
    }

    /// Takes the path at `index` back and forgets it: soon, but not yet when this returns.
    pub fn release(&self, index: u32) {
        self.send(Command::Release { index });
    }

    /// The next index whose [`release`](Self::release) is done, each told once.
    pub fn released(&self) -> Option<u32> {
        self.released.try_recv().ok()
    }

    /// Releases the neighbour entries that were kept resolved and ends the thread. Takes as long as the kernel
    /// takes to answer; a second call does nothing.
    pub fn stop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the next-hop thread panicked; neighbour entries may stay managed");
        }
    }

    fn send(&self, command: Command) {
        // The thread ends only when the sender is gone, or by a panic, which `stop` reports.
        if let Some(commands) = &self.commands {
            let _ = commands.send(command);
        }
    }
}

impl Drop for NextHops {
    fn drop(&mut self) {
        self.stop();
    }
}

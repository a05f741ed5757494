//! The resolver's conversation with the kernel (rtnetlink(7)).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::mpsc as std_mpsc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::LinkMessage,
    neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage},
    route::{RouteMessage, RouteProtocol, RouteType},
};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Publish,
    links::Link,
    netdev::{Netdev, ScatterGather},
    read,
    resolver::{NeighbourKey, Resolver, Route, Work},
};

/// Marks the neighbour entries that we made managed (`NDA_PROTOCOL`), so that a later start can tell a
/// crashed daemon's from an administrator's. The numbers are shared with routes (rtnetlink.h, `RTPROT_*`);
/// this one is not assigned.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(84);

/// How often neighbours are looked at that the kernel does not keep by itself. Shorter than the shortest time
/// in which a confirmed entry goes stale with default settings (15 s).
const REMINDER: Duration = Duration::from_secs(5);

/// Receive buffer for notifications, in bytes. An overrun costs a dump of everything.
const RECEIVE_BUFFER: usize = 1 << 20;

const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv6Ifinfo,
];

type Message = NetlinkMessage<RouteNetlinkMessage>;

/// Runs the resolver until the sender of `commands` is gone, then releases the neighbours it kept. Each index that
/// a command released goes to `releases` once its path is taken back.
pub(super) async fn run(
    publish: Box<dyn Publish>,
    attached: BTreeSet<u32>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    releases: std_mpsc::Sender<u32>,
    started: oneshot::Sender<io::Result<()>>,
) {
    let mut resolver = Resolver::new(publish, attached);
    // Answers come over a socket of their own: only the one that is subscribed can overrun.
    let start = async {
        let (mut connection, _, notifications) = rtnetlink::new_multicast_connection(&GROUPS)?;
        connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        tokio::spawn(connection);
        let (connection, kernel, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        let netdev = match Netdev::open().await {
            Ok(netdev) => Some(netdev),
            Err(error) => {
                tracing::debug!(
                    "frames in several pieces take the slow path: the kernel does not say what drivers can do: {error}"
                );
                None
            }
        };
        resync(&mut resolver, &kernel, netdev.as_ref()).await?;
        Ok((kernel, notifications, netdev))
    };
    let (mut kernel, mut notifications, mut netdev) = match start.await {
        Ok(started) => started,
        Err(error) => return drop(started.send(Err(error))),
    };
    if started.send(Ok(())).is_err() {
        return;
    }

    let mut reminder = tokio::time::interval(REMINDER);
    reminder.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut overrun = false;
    loop {
        // What has happened goes in before the next question, so that an answer is never older than what is known.
        while let Some(Some((message, _))) = notifications.next().now_or_never() {
            overrun |= !notified(&mut resolver, message);
        }
        if overrun {
            match resync(&mut resolver, &kernel, netdev.as_ref()).await {
                Ok(()) => overrun = false,
                Err(error) => {
                    tracing::error!("cannot read links and neighbours after a netlink overrun: {error}");
                }
            }
        }
        match commands.try_recv() {
            Ok(command) => {
                commanded(&mut resolver, &releases, command);
                continue;
            }
            Err(mpsc::error::TryRecvError::Disconnected) => break,
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        if let Some(work) = resolver.next_work() {
            perform(&mut resolver, &mut kernel, work).await;
            continue;
        }
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => commanded(&mut resolver, &releases, command),
                None => break,
            },
            message = notifications.next() => match message {
                Some((message, _)) => overrun |= !notified(&mut resolver, message),
                None => {
                    tracing::error!("the netlink socket failed: all media takes the slow path from now on");
                    break;
                }
            },
            change = driver_changed(netdev.as_mut()) => match change {
                Some((ifindex, scatter_gather)) => resolver.scatter_gather(ifindex, scatter_gather),
                None => overrun = true,
            },
            _ = reminder.tick() => resolver.remind(),
        }
    }

    resolver.release_all();
    while let Some(work) = resolver.next_work() {
        perform(&mut resolver, &mut kernel, work).await;
    }
}

fn commanded(resolver: &mut Resolver, releases: &std_mpsc::Sender<u32>, command: Command) {
    match command {
        Command::Track { index, way } => resolver.track(index, way),
        Command::Release { index } => {
            resolver.release(index);
            // Whoever has stopped us needs no index any more.
            let _ = releases.send(index);
        }
    }
}

/// Takes a notification in. `false`: some were lost (`ENOBUFS`), so the mirror may be wrong.
fn notified(resolver: &mut Resolver, message: Message) -> bool {
    let message = match message.payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return false,
        _ => return true,
    };
    match message {
        RouteNetlinkMessage::NewLink(link) => {
            if let Some((ifindex, link)) = read::link(&link) {
                resolver.link(ifindex, link);
            } else if let Some((ifindex, mtu)) = read::ipv6_link(&link) {
                resolver.ipv6_mtu(ifindex, mtu);
            }
        }
        // A bridge announces with family AF_BRIDGE that a port has left it; the port itself stays.
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            resolver.link_gone(link.header.index);
        }
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            if let Some((key, neighbour)) = read::neighbour(&neighbour) {
                resolver.neighbour(key, neighbour);
            }
        }
        RouteNetlinkMessage::DelNeighbour(neighbour) => {
            if let Some((key, _)) = read::neighbour(&neighbour) {
                resolver.neighbour_gone(key);
            }
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            if let Some(prefix) = read::prefix(&route) {
                resolver.routes_changed(prefix);
            }
        }
        RouteNetlinkMessage::NewAddress(address) | RouteNetlinkMessage::DelAddress(address) => {
            match read::address(&address) {
                // Routes that come and go with it are announced. Each router advertisement announces addresses anew.
                Some(source @ IpAddr::V6(_)) => resolver.source_changed(source),
                // Routes come and go with it without a word (net/ipv4/fib_frontend.c, `fib_inetaddr_event`).
                _ => resolver.routes_changed(Ipv4Net::default().into()),
            }
        }
        // The choice among tables has changed.
        RouteNetlinkMessage::NewRule(rule) | RouteNetlinkMessage::DelRule(rule) => {
            if let Some(prefix) = read::everywhere(rule.header.family) {
                resolver.routes_changed(prefix);
            }
        }
        _ => {}
    }
    true
}

async fn perform(resolver: &mut Resolver, kernel: &mut Handle, work: Work) {
    match work {
        Work::Route { index, source, destination } => {
            let route = look_up(kernel, source, destination).await.unwrap_or_else(|error| {
                tracing::debug!("no route from {source} to {destination}: {error}");
                None
            });
            resolver.route_found(index, route);
        }
        Work::Keep(key) => {
            if let Err(error) = request(kernel, upkeep_message(key, true), NLM_F_CREATE).await {
                tracing::debug!("neighbour {} (ifindex {}) cannot be resolved: {error}", key.1, key.0);
            }
        }
        Work::Release(key) => {
            if let Err(error) = request(kernel, upkeep_message(key, false), 0).await {
                tracing::debug!("neighbour {} (ifindex {}) cannot be released: {error}", key.1, key.0);
            }
        }
    }
}

/// The route that the kernel takes for UDP from `source` to `destination` (`ip route get`). `None`: not a
/// plain unicast route, or the source is not an address of ours.
async fn look_up(kernel: &Handle, source: IpAddr, destination: IpAddr) -> io::Result<Option<Route>> {
    let get =
        async |message: RouteMessage| kernel.route().get(message).execute().try_next().await.map_err(into_io);
    let request = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .source_prefix(source, 32)
            .destination_prefix(destination, 32)
            .ip_protocol(libc::IPPROTO_UDP as u8)
            .build(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            // For IPv4 the kernel looks at that by itself.
            let to_source = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(source, 128);
            if get(plain(to_source.build())).await?.is_none_or(|route| route.header.kind != RouteType::Local)
            {
                return Ok(None);
            }
            RouteMessageBuilder::<Ipv6Addr>::new()
                .source_prefix(source, 128)
                .destination_prefix(destination, 128)
                .ip_protocol(libc::IPPROTO_UDP as u8)
                .build()
        }
        _ => return Ok(None),
    };
    Ok(get(plain(request)).await?.as_ref().and_then(read::route))
}

/// A request without what only a new route is given.
fn plain(mut message: RouteMessage) -> RouteMessage {
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Unspec;
    message.header.kind = RouteType::Unspec;
    message
}

/// Dumps links, neighbours and what drivers can do into the resolver.
async fn resync(resolver: &mut Resolver, kernel: &Handle, netdev: Option<&Netdev>) -> io::Result<()> {
    let links: Vec<LinkMessage> = kernel.link().get().execute().try_collect().await.map_err(into_io)?;
    let links: HashMap<u32, Link> = links.iter().filter_map(read::link).collect();
    let neighbours: Vec<NeighbourMessage> =
        kernel.neighbours().get().execute().try_collect().await.map_err(into_io)?;
    let neighbours = neighbours.iter().filter_map(read::neighbour).collect();
    resolver.resync(links, neighbours);
    if let Some(netdev) = netdev {
        match netdev.interfaces().await {
            Ok(interfaces) => {
                interfaces.into_iter().for_each(|(ifindex, can)| resolver.scatter_gather(ifindex, can));
            }
            Err(error) => tracing::warn!("the kernel does not say what drivers can do: {error}"),
        }
    }
    Ok(())
}

/// The next change of what a driver can do; see [`Netdev::changed`].
async fn driver_changed(netdev: Option<&mut Netdev>) -> Option<ScatterGather> {
    match netdev {
        Some(netdev) => netdev.changed().await,
        None => std::future::pending().await,
    }
}

/// Asks the kernel to resolve an entry now and, from 5.16, to keep it so (`keep`), or no longer to.
///
/// `NTF_USE` leaves state and MAC address as they are; without it a message without an address would
/// invalidate the entry. Before 5.16 the extended flags are ignored and `NTF_USE` remains
/// (net/core/neighbour.c, `neigh_add`).
fn upkeep_message((ifindex, address): NeighbourKey, keep: bool) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = ifindex;
    message.header.flags = NeighbourFlags::Use;
    message.attributes.push(NeighbourAttribute::Destination(address.into()));
    if keep {
        message.attributes.push(NeighbourAttribute::Protocol(PROTOCOL));
        message.attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    }
    message
}

async fn request(kernel: &mut Handle, message: NeighbourMessage, flags: u16) -> io::Result<()> {
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE | flags;
    let mut answers = kernel.request(request).map_err(into_io)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            return Err(error.to_io());
        }
    }
    Ok(())
}

fn into_io(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.to_io(),
        error => io::Error::other(error),
    }
}

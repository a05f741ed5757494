//! The resolver's conversation with the kernel (rtnetlink(7)).

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::mpsc as std_mpsc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressHeader, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage},
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
        NeighbourState,
    },
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteProtocol, RouteType, RouteVia},
    rule::{RuleHeader, RuleMessage},
};
use rtnetlink::sys::AsyncSocket as _;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Command, Publish,
    resolver::{Link, Neighbour, NeighbourKey, Resolver, Route, Upkeep, Work},
};

/// Marks the neighbour entries that we made managed (`NDA_PROTOCOL`), so that a later start can tell a
/// crashed daemon's from an administrator's. The numbers are shared with routes (rtnetlink.h, `RTPROT_*`);
/// this one is not assigned.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(84);

/// How often neighbours are looked at that the kernel does not keep by itself. Shorter than the shortest time
/// in which a confirmed entry goes stale with default settings (15 s).
const REMINDER: Duration = Duration::from_secs(5);

/// Receive buffer for notifications, in bytes. An overrun costs a dump of everything.
const RECEIVE_BUFFER: usize = 1 << 20;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv6Rule,
];

type Message = NetlinkMessage<RouteNetlinkMessage>;

/// Runs the resolver until the sender of `commands` is gone, then releases the neighbours it kept. Each index that
/// a command released goes to `releases` once it is published as unresolved.
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
        resync(&mut resolver, &kernel).await?;
        Ok((kernel, notifications))
    };
    let (mut kernel, mut notifications) = match start.await {
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
            match resync(&mut resolver, &kernel).await {
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
            if let Some((ifindex, link)) = read_link(&link) {
                resolver.link(ifindex, link);
            }
        }
        // A bridge announces with family AF_BRIDGE that a port has left it; the port itself stays.
        RouteNetlinkMessage::DelLink(link) if link.header.interface_family == AddressFamily::Unspec => {
            resolver.link_gone(link.header.index);
        }
        RouteNetlinkMessage::NewNeighbour(neighbour) => {
            if let Some((key, neighbour)) = read_neighbour(&neighbour) {
                resolver.neighbour(key, neighbour);
            }
        }
        RouteNetlinkMessage::DelNeighbour(neighbour) => {
            if let Some((key, _)) = read_neighbour(&neighbour) {
                resolver.neighbour_gone(key);
            }
        }
        RouteNetlinkMessage::NewRoute(route) | RouteNetlinkMessage::DelRoute(route) => {
            if let Some(prefix) = read_prefix(&route) {
                resolver.routes_changed(prefix);
            }
        }
        // The set of valid sources, or the choice among tables, has changed.
        RouteNetlinkMessage::NewAddress(AddressMessage { header: AddressHeader { family, .. }, .. })
        | RouteNetlinkMessage::DelAddress(AddressMessage { header: AddressHeader { family, .. }, .. })
        | RouteNetlinkMessage::NewRule(RuleMessage { header: RuleHeader { family, .. }, .. })
        | RouteNetlinkMessage::DelRule(RuleMessage { header: RuleHeader { family, .. }, .. }) => {
            if let Some(prefix) = everywhere(family) {
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
/// plain unicast route.
async fn look_up(kernel: &Handle, source: IpAddr, destination: IpAddr) -> io::Result<Option<Route>> {
    let message = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => RouteMessageBuilder::<Ipv4Addr>::new()
            .source_prefix(source, 32)
            .destination_prefix(destination, 32)
            .ip_protocol(libc::IPPROTO_UDP as u8)
            .build(),
        (IpAddr::V6(source), IpAddr::V6(destination)) => RouteMessageBuilder::<Ipv6Addr>::new()
            .source_prefix(source, 128)
            .destination_prefix(destination, 128)
            .ip_protocol(libc::IPPROTO_UDP as u8)
            .build(),
        _ => return Ok(None),
    };
    let mut message = message;
    message.header.table = 0;
    message.header.protocol = RouteProtocol::Unspec;
    message.header.kind = RouteType::Unspec;
    let answer = kernel.route().get(message).execute().try_next().await.map_err(into_io)?;
    Ok(answer.as_ref().and_then(read_route))
}

fn read_route(message: &RouteMessage) -> Option<Route> {
    if message.header.kind != RouteType::Unicast {
        return None;
    }
    let mut route = Route { ifindex: 0, gateway: None, mtu: None };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(ifindex) => route.ifindex = *ifindex,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            // An IPv4 route through an IPv6 gateway (RFC 5549).
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some((*gateway).into()),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            // A tunnel's header would be missing.
            RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => return None,
            _ => {}
        }
    }
    (route.ifindex != 0).then_some(route)
}

/// The prefix that a route message is about.
fn read_prefix(message: &RouteMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    });
    match address {
        Some(address) => IpNet::new(address, message.header.destination_prefix_length).ok(),
        None => everywhere(message.header.address_family),
    }
}

/// All destinations of a family; `None` if it is not one of ours.
fn everywhere(family: AddressFamily) -> Option<IpNet> {
    match family {
        AddressFamily::Inet => Some(Ipv4Net::default().into()),
        AddressFamily::Inet6 => Some(Ipv6Net::default().into()),
        _ => None,
    }
}

/// Dumps links and neighbours into the resolver.
async fn resync(resolver: &mut Resolver, kernel: &Handle) -> io::Result<()> {
    let links: Vec<LinkMessage> = kernel.link().get().execute().try_collect().await.map_err(into_io)?;
    let links: HashMap<u32, Link> = links.iter().filter_map(read_link).collect();
    let neighbours: Vec<NeighbourMessage> =
        kernel.neighbours().get().execute().try_collect().await.map_err(into_io)?;
    let neighbours = neighbours.iter().filter_map(read_neighbour).collect();
    resolver.resync(links, neighbours);
    Ok(())
}

fn read_link(message: &LinkMessage) -> Option<(u32, Link)> {
    // Bridges announce their ports with family AF_BRIDGE and half of the attributes.
    if message.header.interface_family != AddressFamily::Unspec {
        return None;
    }
    let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let flags = message.header.flags;
    let up = flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::Running);
    let mut link = Link { name: String::new(), mac: None, mtu: 0, up };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(address) if ethernet => link.mac = address.as_slice().try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    Some((message.header.index, link))
}

fn read_neighbour(message: &NeighbourMessage) -> Option<(NeighbourKey, Neighbour)> {
    if message.header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut address, mut mac, mut managed, mut ours) = (None, None, false, false);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            NeighbourAttribute::ExtFlags(flags) => managed = flags.contains(NeighbourExtFlags::Managed),
            NeighbourAttribute::Protocol(protocol) => ours = *protocol == PROTOCOL,
            _ => {}
        }
    }
    let state = message.header.state;
    let valid = matches!(
        state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Noarp
            | NeighbourState::Permanent
    );
    let upkeep = match (state, managed) {
        (NeighbourState::Permanent | NeighbourState::Noarp, _) => Upkeep::Others,
        (_, true) if ours => Upkeep::Ours,
        (_, true) => Upkeep::Others,
        (_, false) => Upkeep::None,
    };
    let idle = matches!(state, NeighbourState::None | NeighbourState::Stale | NeighbourState::Failed);
    Some(((message.header.ifindex, address?), Neighbour { mac: mac.filter(|_| valid), upkeep, idle }))
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

//! What drivers can do with redirected frames, asked by generic netlink (family "netdev" of Linux 6.3, linux/netdev.h).
//! An older kernel does not say.

use std::io;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::{
    packet_core::{
        DecodeError, DefaultNla, Emitable as _, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable,
        NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
    },
    proto::{self, ConnectionHandle},
    sys::{AsyncSocket as _, SocketAddr, protocols::NETLINK_GENERIC},
};

// linux/genetlink.h.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const CTRL_ATTR_MCAST_GROUPS: u16 = 7;
const CTRL_ATTR_MCAST_GRP_NAME: u16 = 1;
const CTRL_ATTR_MCAST_GRP_ID: u16 = 2;

// linux/netdev.h.
const FAMILY_NAME: &[u8] = b"netdev\0";
const GROUP_NAME: &[u8] = b"mgmt\0";
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_CMD_DEV_ADD_NTF: u8 = 2;
const NETDEV_CMD_DEV_CHANGE_NTF: u8 = 4;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_XDP_ACT_NDO_XMIT_SG: u64 = 1 << 6;

/// The kernel's answers, and its word when one changes.
pub(super) struct Netdev {
    kernel: ConnectionHandle<Message>,
    family: u16,
    changes: Box<dyn Stream<Item = Payload> + Send + Unpin>,
}

/// An interface, and whether it sends frames in several pieces that were redirected to it.
pub(super) type ScatterGather = (u32, bool);

type Payload = NetlinkPayload<Message>;

impl Netdev {
    /// # Errors
    /// `ENOENT` where the kernel knows no such family.
    pub(super) async fn open() -> io::Result<Self> {
        let (connection, kernel, _) = proto::new_connection(NETLINK_GENERIC)?;
        let connection = tokio::spawn(connection);
        let name = DefaultNla::new(CTRL_ATTR_FAMILY_NAME, FAMILY_NAME.to_vec());
        let answers =
            ask(&kernel, Message::new(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &[name]), NLM_F_ACK).await?;
        connection.abort();
        let (family, group) = answers
            .iter()
            .find_map(read_family)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;

        let (mut connection, kernel, changes) = proto::new_connection(NETLINK_GENERIC)?;
        connection.socket_mut().socket_mut().add_membership(group)?;
        tokio::spawn(connection);
        let changes =
            Box::new(changes.map(|(message, _): (NetlinkMessage<Message>, SocketAddr)| message.payload));
        Ok(Self { kernel, family, changes })
    }

    /// All interfaces of the network namespace.
    pub(super) async fn interfaces(&self) -> io::Result<Vec<ScatterGather>> {
        let request = Message::new(self.family, NETDEV_CMD_DEV_GET, &[]);
        Ok(ask(&self.kernel, request, NLM_F_DUMP).await?.iter().filter_map(read_interface).collect())
    }

    /// The next interface that is new or has changed. `None`: some have been missed.
    pub(super) async fn changed(&mut self) -> Option<ScatterGather> {
        loop {
            match self.changes.next().await {
                Some(NetlinkPayload::InnerMessage(message)) => {
                    if let Some(interface) = read_interface(&message) {
                        return Some(interface);
                    }
                }
                Some(NetlinkPayload::Overrun(_)) => return None,
                Some(_) => {}
                // The socket failed, which nothing mends: what is known stays.
                None => std::future::pending().await,
            }
        }
    }
}

async fn ask(kernel: &ConnectionHandle<Message>, message: Message, flags: u16) -> io::Result<Vec<Message>> {
    let mut request = NetlinkMessage::from(message);
    request.header.flags = NLM_F_REQUEST | flags;
    let mut stream = kernel.request(request, SocketAddr::new(0, 0)).map_err(io::Error::other)?;
    let mut answers = Vec::new();
    while let Some(answer) = stream.next().await {
        match answer.payload {
            NetlinkPayload::InnerMessage(message) => answers.push(message),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
            _ => {}
        }
    }
    Ok(answers)
}

/// The number of the family, and that of its group of notifications.
fn read_family(message: &Message) -> Option<(u16, u32)> {
    let family = message.attributes().find(|nla| nla.kind() == CTRL_ATTR_FAMILY_ID)?;
    let groups = message.attributes().find(|nla| nla.kind() == CTRL_ATTR_MCAST_GROUPS)?;
    let group = attributes(groups.value()).find_map(|group| {
        let named = attributes(group.value())
            .any(|nla| nla.kind() == CTRL_ATTR_MCAST_GRP_NAME && nla.value() == GROUP_NAME);
        let id = attributes(group.value()).find(|nla| nla.kind() == CTRL_ATTR_MCAST_GRP_ID)?;
        named.then_some(u32::from_ne_bytes(id.value().try_into().ok()?))
    })?;
    Some((u16::from_ne_bytes(family.value().try_into().ok()?), group))
}

fn read_interface(message: &Message) -> Option<ScatterGather> {
    if ![NETDEV_CMD_DEV_GET, NETDEV_CMD_DEV_ADD_NTF, NETDEV_CMD_DEV_CHANGE_NTF].contains(&message.command) {
        return None;
    }
    let (mut ifindex, mut features) = (None, None);
    for nla in message.attributes() {
        match nla.kind() {
            NETDEV_A_DEV_IFINDEX => ifindex = nla.value().try_into().ok().map(u32::from_ne_bytes),
            NETDEV_A_DEV_XDP_FEATURES => features = nla.value().try_into().ok().map(u64::from_ne_bytes),
            _ => {}
        }
    }
    Some((ifindex?, features? & NETDEV_XDP_ACT_NDO_XMIT_SG != 0))
}

/// A message of a generic netlink family.
#[derive(Clone, Debug)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

/// `struct genlmsghdr`: command, version, two bytes of zero.
const HEADER_LEN: usize = 4;

impl Message {
    fn new(family: u16, command: u8, nlas: &[DefaultNla]) -> Self {
        let mut attributes = vec![0; nlas.buffer_len()];
        nlas.emit(&mut attributes);
        Self { family, command, attributes }
    }

    fn attributes(&self) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
        attributes(&self.attributes)
    }
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

impl From<Message> for Payload {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_LEN + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER_LEN);
        header.copy_from_slice(&[self.command, 1, 0, 0]);
        attributes.copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((&[command, ..], attributes)) = payload.split_first_chunk::<HEADER_LEN>() else {
            return Err(DecodeError::from("no header of a generic netlink message"));
        };
        Ok(Self { family: header.message_type, command, attributes: attributes.to_vec() })
    }
}

//! What flows are found by, the same for both families.

use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as SockTupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as SockTupleV6,
    },
    helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release},
};
use relay_common::{
    address::{Address, Family},
    flow::{FLOW_ENTRY_WORDS, FlowEntry, FlowKey, FlowKeyV4, FlowKeyV6, form},
    outcome::Outcome,
};

use crate::{
    lookup,
    maps::{FLOWS_V4, FLOWS_V6},
    packet::{Packet, unfolded},
};

/// A key of the flow table of its family. Network byte order, but for the form.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    /// IP version: 4, else 6.
    pub(crate) version: u8,
    pub(crate) local: Address,
    pub(crate) remote: Address,
    pub(crate) local_port: u16,
    pub(crate) remote_port: u16,
    pub(crate) channel: u16,
    pub(crate) form: u16,
}

impl Key {
    /// The same local and any port of the same remote address.
    #[inline(always)]
    pub(crate) const fn permission(self, form: u16) -> Self {
        Self { remote_port: 0, channel: 0, form, ..self }
    }

    /// The whole entry under this key.
    #[inline(always)]
    pub(crate) fn flow(&self) -> Result<FlowEntry, Outcome> {
        if self.is_v4() {
            let key = self.v4();
            whole(&key, FLOWS_V4.get_ptr(key))
        } else {
            let key = self.v6();
            whole(&key, FLOWS_V6.get_ptr(key))
        }
    }

    /// Whether its local address and port are a listener or a live relayed address.
    #[inline(always)]
    pub(crate) fn is_endpoint(&self) -> bool {
        // Of plain zeroes the compiler would make a call of memset, which takes stack that Linux 6.1 does not grant.
        let zero = unfolded(0) as u64;
        let key =
            Self { remote: Address([zero; 2]), remote_port: 0, channel: 0, form: form::ENDPOINT, ..*self };
        if key.is_v4() { FLOWS_V4.get_ptr(key.v4()).is_some() } else { FLOWS_V6.get_ptr(key.v6()).is_some() }
    }

    /// Whether a UDP socket of the interface's network namespace would get the datagram.
    #[inline(always)]
    pub(crate) fn has_socket(&self, packet: &Packet) -> bool {
        let (sport, dport) = (self.remote_port, self.local_port);
        if self.is_v4() {
            let (saddr, daddr) = (self.remote.to_v4(), self.local.to_v4());
            has_socket(packet, &mut SockTupleV4 { saddr, daddr, sport, dport })
        } else {
            let (saddr, daddr) = (quarters(self.remote), quarters(self.local));
            has_socket(packet, &mut SockTupleV6 { saddr, daddr, sport, dport })
        }
    }

    /// Whether it is of IPv4.
    #[inline(always)]
    pub(crate) const fn is_v4(&self) -> bool {
        self.version == Family::V4 as u8
    }

    #[inline(always)]
    fn v4(&self) -> FlowKeyV4 {
        let Self { local_port, remote_port, channel, form, .. } = *self;
        let (local_addr, remote_addr) = (self.local.to_v4(), self.remote.to_v4());
        FlowKeyV4 { local_addr, remote_addr, local_port, remote_port, channel, form }.in_words()
    }

    #[inline(always)]
    fn v6(&self) -> FlowKeyV6 {
        let Self { local_port, remote_port, channel, form, .. } = *self;
        let (local_addr, remote_addr) = (self.local, self.remote);
        FlowKeyV6 { local_addr, remote_addr, local_port, remote_port, channel, form }.in_words()
    }
}

#[inline(always)]
fn whole(key: &impl FlowKey, entry: Option<*const FlowEntry>) -> Result<FlowEntry, Outcome> {
    let entry = entry.ok_or(Outcome::NoFlow)?;
    // SAFETY: a map value of 48 bytes, aligned to 8.
    let flow = FlowEntry::from_words(unsafe { lookup::copy::<FLOW_ENTRY_WORDS>(entry.cast()) });
    if flow.verify(key) { Ok(flow) } else { Err(Outcome::Torn) }
}

/// `T` is the tuple of either family: the kernel tells them apart by their size.
#[inline(always)]
fn has_socket<T>(packet: &Packet, tuple: &mut T) -> bool {
    // SAFETY: the context is the kernel's; a tuple of this size is taken for one of its family.
    let socket = unsafe {
        bpf_sk_lookup_udp(
            packet.as_ptr(),
            core::ptr::from_mut(tuple).cast(),
            size_of::<T>() as u32,
            BPF_F_CURRENT_NETNS as u64,
            0,
        )
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket just given, released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}

#[inline(always)]
const fn quarters(Address([a, b]): Address) -> [u32; 4] {
    [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32]
}

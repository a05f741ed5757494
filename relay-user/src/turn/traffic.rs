//! Amounts of relayed data.

use std::ops::AddAssign;

/// Packets and bytes of application data (without any header).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Traffic {
    /// Counts one packet with `bytes` of application data.
    pub fn add_packet(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Traffic by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Relayed {
    /// From clients to peers outside this server.
    pub to_peer: Traffic,
    /// From peers outside this server to clients.
    pub to_client: Traffic,
    /// From one allocation of this server to another, counted once.
    pub hairpin: Traffic,
}

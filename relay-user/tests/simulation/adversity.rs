//! Time that passes at the wrong moment, a host that has no port left, and foes.

use std::time::Duration;

use rand::{Rng, RngExt};
use relay_user::turn::OpenError;

use crate::{
    ask::{Ask, Flaw, Sent},
    clients::CHANNELS,
    pair::SECOND,
    wire,
    world::World,
};

impl World {
    pub fn time_passes(&mut self) {
        let (now, next) = (self.pair.now, self.pair.server.poll_timeout());
        let duration = match self.rng.random_range(0..10) {
            // To the brink of what ends next, and over it.
            0 => next.map_or(1, |next| next - now - 1),
            1 => next.map_or(1, |next| next - now),
            2..5 => self.rng.random_range(0..20 * SECOND),
            5..8 => self.rng.random_range(0..300 * SECOND),
            _ => self.rng.random_range(0..1500 * SECOND),
        };
        let duration = Duration::from_nanos(duration);
        if self.rng.random_bool(0.7) {
            self.pair.advance(duration);
        } else {
            // The driver sleeps through it, and wakes up late.
            self.pair.oversleep(duration);
            self.pair.server.handle_timeout(self.pair.now);
            self.pair.drain();
        }
    }

    /// Another program has the next port, or the host has no more sockets.
    pub fn fault(&mut self) {
        let error = if self.rng.random() { OpenError::Unavailable } else { OpenError::Other };
        self.pair.open_errors = [error].into();
    }

    pub fn hostile(&mut self, client: usize) {
        let from = self.clients[client].five_tuple;
        let Some(by) = self.clients[client].sender() else { return };
        let mut thief = self.newcomer();
        match self.rng.random_range(0..4) {
            // A stolen nonce, even with the right password.
            0 => {
                thief.nonce = Some(by.nonce);
                let sent =
                    Sent::new(thief.sender().unwrap(), self.transaction(), self.allocate(), Flaw::None);
                self.tally.count("hostile: stolen nonce");
                self.request(&sent);
            }
            // Changed on the way.
            1 => {
                let ask = Ask::Refresh { lifetime: Some(0), family: None };
                let mut datagram = Sent::new(by, self.transaction(), ask, Flaw::None).datagram;
                let at = self.rng.random_range(20..datagram.len());
                datagram[at] ^= self.rng.random_range(1..=255u8);
                self.tally.count("hostile: changed on the way");
                self.deliver(from, &datagram);
            }
            // Data from where there is no allocation.
            2 => {
                let data = wire::channel_data(CHANNELS[0], b"data");
                self.tally.count("hostile: data without allocation");
                assert!(self.deliver(thief.five_tuple, &data).is_silence());
            }
            _ => {
                let mut noise = vec![0; self.rng.random_range(0..60)];
                self.rng.fill_bytes(&mut noise);
                let from = if self.rng.random() { from } else { thief.five_tuple };
                self.tally.count("hostile: noise");
                self.deliver(from, &noise);
            }
        }
    }
}

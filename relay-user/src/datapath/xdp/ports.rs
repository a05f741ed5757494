//! `PORT_CLASSES`: which UDP ports a listener or a live allocation has on any address.

use std::collections::HashMap;

use relay_common::port_class::{self, PortClass};

use super::words::Words;

/// The map and the number of endpoints behind each port.
pub(super) struct Ports<W> {
    words: W,
    endpoints: HashMap<u16, Endpoints>,
}

#[derive(Default)]
struct Endpoints {
    listeners: u32,
    relayed: u32,
}

impl<W: Words> Ports<W> {
    pub(super) fn new(words: W) -> Self {
        Self { words, endpoints: HashMap::new() }
    }

    /// One more listener on `port` (host byte order).
    pub(super) fn add_listener(&mut self, port: u16) {
        self.endpoints.entry(port).or_default().listeners += 1;
        self.write(port);
    }

    /// One more relayed address with `port` (host byte order).
    pub(super) fn add_relayed(&mut self, port: u16) {
        self.endpoints.entry(port).or_default().relayed += 1;
        self.write(port);
    }

    /// One relayed address with `port` (host byte order) less.
    pub(super) fn remove_relayed(&mut self, port: u16) {
        if let Some(endpoints) = self.endpoints.get_mut(&port) {
            endpoints.relayed = endpoints.relayed.saturating_sub(1);
            self.write(port);
        }
    }

    fn write(&mut self, port: u16) {
        // No port is both: the daemon refuses such a configuration.
        let class = match self.endpoints.get(&port) {
            Some(Endpoints { listeners: 1.., .. }) => PortClass::Listener,
            Some(Endpoints { relayed: 1.., .. }) => PortClass::Relayed,
            _ => {
                self.endpoints.remove(&port);
                PortClass::Foreign
            }
        };
        let index = port_class::word(port);
        self.words.store(index, port_class::with(self.words.load(index), port, class));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::Memory, *};

    #[test]
    fn a_port_is_ours_until_its_last_address_is_gone() {
        let words = Memory::new(port_class::WORDS);
        let mut ports = Ports::new(words.clone());
        let class = |port| port_class::of(words.load(port_class::word(port)), port);
        ports.add_listener(3478);
        ports.add_relayed(49152);
        ports.add_relayed(49152);
        ports.add_relayed(49153);
        ports.remove_relayed(49152);
        assert_eq!([class(3478), class(49152), class(49153), class(49154)], [1, 2, 2, 0]);
        ports.remove_relayed(49152);
        ports.remove_relayed(49152);
        assert_eq!([class(3478), class(49152), class(49153)], [1, 0, 2]);
    }
}

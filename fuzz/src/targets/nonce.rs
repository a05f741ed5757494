//! Nonces: of all that a client may say, the server takes only what it gave to this client.

use crate::{
    pair::{Pair, REALM, USER},
    wire::{self, Builder},
};

pub fn check(nonce: &[u8]) {
    let mut pair = Pair::new();
    pair.refresh(0, 600);
    let issued = pair.clients[0].nonce.clone().expect("the request needed one");
    // Also as a change of the nonce that was issued: XORed with the input.
    let changed: Vec<_> =
        issued.iter().zip(nonce.iter().chain(std::iter::repeat(&0))).map(|(a, b)| a ^ b).collect();
    for nonce in [nonce, &changed] {
        let request = Builder::new(wire::REQUEST, wire::REFRESH, [9; 12])
            .credentials(USER, REALM, nonce)
            .integrity(&pair.key_of(0))
            .build();
        let accepted = pair.exchange(0, &request).error() == 437;
        assert_eq!(accepted, nonce == issued);
    }
}

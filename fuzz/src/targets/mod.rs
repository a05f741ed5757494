//! One module for each target; each checks one input, and panics when something does not hold.

pub mod channel_data;
pub mod configuration;
pub mod core;
pub mod nonce;
pub mod stun;
pub mod values;

/// Gives an input to the target of that name.
pub fn check(target: &str, data: &[u8]) {
    let check = match target {
        "channel_data" => channel_data::check,
        "configuration" => configuration::check,
        "core" => core::check,
        "nonce" => nonce::check,
        "stun" => stun::check,
        "values" => values::check,
        _ => panic!("corpus/{target}: there is no such target"),
    };
    check(data);
}

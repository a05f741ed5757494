//! What the fuzz targets check, for libFuzzer here and for the replay of the corpora as plain tests in
//! `relay-user/tests/fuzz_corpus`, which includes the same files.

#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../../relay-user/tests/protocol/pair.rs"]
mod pair;
pub mod targets;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../../relay-user/tests/protocol/wire.rs"]
mod wire;

//! Replays the corpora of the fuzz targets (`fuzz/README.md`) as plain tests.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

use std::{fs, path::Path};

#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/pair.rs"]
mod pair;
#[path = "../../../fuzz/src/targets/mod.rs"]
mod targets;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/wire.rs"]
mod wire;

#[test]
fn every_input_of_every_corpus_still_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for directory in fs::read_dir(&corpora).unwrap() {
        let directory = directory.unwrap();
        let target = directory.file_name().into_string().unwrap();
        let mut inputs = 0;
        for input in fs::read_dir(directory.path()).unwrap() {
            let input = input.unwrap().path();
            // Captured, and shown when the check panics.
            println!("{}", input.display());
            targets::check(&target, &fs::read(&input).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "corpus/{target} is empty");
    }
}

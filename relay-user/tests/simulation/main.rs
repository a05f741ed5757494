//! The core under simulation: 100,000 sessions over a bad network, each step held against a model that follows
//! the RFC's text alone.
//!
//! Every world follows from its seed. When one fails, its seed and step are printed, and
//! `TURNPIKE_SIMULATION_SEED=<seed> cargo test -p relay-user --test simulation` lives through it again.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

mod adversity;
mod ask;
mod check;
mod clients;
mod kernel;
mod model;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/pair.rs"]
mod pair;
mod tally;
mod traffic;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/wire.rs"]
mod wire;
mod world;

use std::thread;

use tally::Tally;
use world::World;

/// Most have a hundred sessions; those that send their clients elsewhere have none.
const WORLDS: u64 = 1_080;

// STUN-015, STUN-026, STUN-039, STUN-067, TURN-007, TURN-009, TURN-022, TURN-026, TURN-030, TURN-062, TURN-071, TURN-083,
// TURN-085, TURN-094, TURN-095, TURN-097, TURN-102, TURN-107, TURN-113, TURN-147, TURN-159
#[test]
fn a_hundred_thousand_sessions() {
    let seed = std::env::var("TURNPIKE_SIMULATION_SEED").ok().map(|seed| seed.parse().unwrap());
    let (first, worlds) = seed.map_or_else(|| (rand::random::<u64>() >> 16, WORLDS), |seed| (seed, 1));
    println!("worlds from seed {first} on");
    let threads = thread::available_parallelism().map_or(1, |n| n.get() as u64).min(worlds);
    let tally = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || live(first + thread, threads, first + worlds)))
            .collect();
        let mut tally = Tally::default();
        for thread in threads {
            tally.add(thread.join().expect("a world has failed: see its seed above"));
        }
        tally
    });
    tally.print();
    if seed.is_none() {
        let rare = tally.rare();
        assert!(rare.is_empty(), "rare, so hardly tested: {rare:#?}");
    }
}

fn live(first: u64, every: u64, end: u64) -> Tally {
    let mut tally = Tally::default();
    for seed in (first..end).step_by(every as usize) {
        let mut world = Named { seed, world: World::new(seed) };
        world.world.run();
        tally.add(std::mem::take(&mut world.world.tally));
    }
    tally
}

/// Says which world it was when one fails.
struct Named {
    seed: u64,
    world: World,
}

impl Drop for Named {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "world {} failed in step {}: TURNPIKE_SIMULATION_SEED={0}",
                self.seed, self.world.steps
            );
        }
    }
}

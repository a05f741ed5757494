//! The kernel program against the userspace path: the same packets, in the same state, at the same time, must come
//! out with the same bytes, the same counts and the same decision.
//!
//! A *world* is a server in some state that real requests have brought it to, and the maps filled by what the server
//! said. Each packet is given to the program (`BPF_PROG_TEST_RUN`), and to the server behind a model of what the
//! kernel hands to sockets. Whatever the program forwards must be what the server sends; whatever it drops the server
//! must drop; whatever it punts must have a reason that is true of it, and be untouched.
//!
//! Everything follows from the seed. `TURNPIKE_DIFFERENTIAL_PACKETS` and `TURNPIKE_DIFFERENTIAL_SEED` say how many
//! packets, and which worlds.
#![expect(unreachable_pub, reason = "a test binary has no outside")]

#[path = "../program/batch.rs"]
mod batch;
mod driver;
mod expect;
mod generate;
mod judge;
mod life;
mod mapped;
mod packet;
mod payload;
mod program;
mod reasons;
mod receive;
mod requests;
mod shrink;
mod spoil;
mod tally;
#[expect(dead_code, reason = "shared with the protocol tests, which use all of it")]
#[path = "../protocol/wire.rs"]
mod wire;
mod world;

use std::{
    env, io,
    io::Write as _,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use judge::Judge;
use life::Life;
use program::Program;
use tally::Tally;

const PACKETS: u64 = 1_000_000;

/// Each way to forward and each reason not to must have been seen so often, in a run of [`PACKETS`] or more.
const LEAST: u64 = 1000;

// DP-001, DP-002, DP-003, DP-005, DP-006, DP-007, DP-008, DP-010, DP-018, DP-021, DP-022, DP-023, DP-024, DP-025
// DP-030, DP-031, DP-033, DP-034, DP-035, DP-036, DP-037, DP-039, DP-041, DP-042, DP-043, DP-044, DP-045, DP-046, DP-047
// DP-048, DP-051, DP-053, DP-054, DP-056, DP-057, DP-058, DP-059, DP-060, DP-061, DP-062, DP-067, DP-073, DP-074, DP-077
#[test]
#[ignore = "needs CAP_BPF: cargo xtask test"]
fn dp_001_the_program_does_what_the_server_does() {
    let packets = variable("TURNPIKE_DIFFERENTIAL_PACKETS").unwrap_or(PACKETS);
    let seed = variable("TURNPIKE_DIFFERENTIAL_SEED").unwrap_or_else(|| rand::random::<u64>() >> 16);
    say(&format!("\n{packets} packets, worlds from TURNPIKE_DIFFERENTIAL_SEED={seed} on\n"));

    let shared =
        Shared { next: AtomicU64::new(seed), done: AtomicU64::new(0), failed: AtomicBool::new(false) };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (mut tally, mut failures) = (Tally::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&shared, packets))).collect();
        for thread in threads {
            let (its, failure) = thread.join().expect("a thread of the test panicked");
            tally.add(&its);
            failures.extend(failure);
        }
    });
    say(&tally.to_string());
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));

    let forwarded = tally.forwarded();
    assert!(forwarded * 10 >= tally.packets * 3, "{forwarded} of {} were forwarded", tally.packets);
    let rare: Vec<_> = tally.required().filter(|&(_, count)| packets >= PACKETS && count < LEAST).collect();
    assert!(rare.is_empty(), "rare, so hardly tested: {rare:#?}");
}

/// What the threads have in common.
struct Shared {
    /// The seed of the next world.
    next: AtomicU64,
    /// Packets.
    done: AtomicU64,
    failed: AtomicBool,
}

/// Lives through worlds until there were enough packets, or one of them made a difference: its story is returned.
fn work(shared: &Shared, packets: u64) -> (Tally, Option<String>) {
    let mut program = Program::load(rand::random());
    let mut judge = Judge::default();
    let mut tally = Tally::default();
    while shared.done.load(Ordering::Relaxed) < packets && !shared.failed.load(Ordering::Relaxed) {
        let life = Life { seed: shared.next.fetch_add(1, Ordering::Relaxed) };
        let before = tally.packets;
        if let Err(failure) = life.live(&mut program, &mut judge, &mut tally) {
            shared.failed.store(true, Ordering::Relaxed);
            let story = shrink::story(&life, &mut program, failure);
            return (tally, Some(story));
        }
        shared.done.fetch_add(tally.packets - before, Ordering::Relaxed);
    }
    (tally, None)
}

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// Prints where libtest does not hide it: the distribution is a result of the test.
fn say(text: &str) {
    io::stdout().write_all(text.as_bytes()).unwrap();
}

//! The life of a world: how its state changes, and which packets come when, all from its seed.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    generate::Generator,
    judge::{Judge, Mismatch},
    packet::Packet,
    program::Program,
    tally::Tally,
    world::{SECOND, World},
};

const PHASES: u64 = 3;
const PACKETS_A_PHASE: u64 = 400;

/// A world's.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    pub seed: u64,
}

/// The packet that made a difference.
#[derive(Clone, Debug)]
pub struct Failure {
    pub number: u64,
    /// `None`: one of those before this number.
    pub packet: Option<Packet>,
    pub mismatch: Mismatch,
}

impl Life {
    /// From the beginning to the end, or to the first difference.
    pub fn live(
        &self,
        program: &mut Program,
        judge: &mut Judge,
        tally: &mut Tally,
    ) -> Result<(), Box<Failure>> {
        self.live_with(program, judge, tally, None).map_err(|failure| {
            if failure.packet.is_some() {
                return failure;
            }
            // Some packet before made the difference: it is found by looking closer.
            let mut thorough = Judge::thorough();
            self.live_with(program, &mut thorough, &mut Tally::default(), None).err().unwrap_or(failure)
        })
    }

    /// Up to one packet, another in its place: whether that makes a difference too.
    pub fn differs(&self, program: &mut Program, number: u64, packet: &Packet) -> Option<Mismatch> {
        let mut judge = Judge::thorough();
        let result = self.live_with(program, &mut judge, &mut Tally::default(), Some((number, packet)));
        result.err().filter(|failure| failure.number == number).map(|failure| failure.mismatch)
    }

    fn live_with(
        &self,
        program: &mut Program,
        judge: &mut Judge,
        tally: &mut Tally,
        instead: Option<(u64, &Packet)>,
    ) -> Result<(), Box<Failure>> {
        let mut world = World::new(program, self.seed);
        let generator = Generator::new(&mut self.rng(u64::MAX));
        judge.begin(&mut world);
        let mut number = 0;
        for phase in 0..PHASES {
            let mut rng = self.rng(1 << 32 | phase);
            world.live(&mut rng);
            world.choose_busy(&mut rng);
            if phase > 0 && rng.random_bool(0.2) {
                world.begin_delay();
                world.now += rng.random_range(0..60 * SECOND);
            } else if !world.daemon_gone && rng.random_bool(0.06) {
                world.driver.tear(&mut rng);
            }
            for _ in 0..PACKETS_A_PHASE {
                let mut rng = self.rng(number);
                pass_time(&mut world, &mut rng);
                let generated = generator.packet(&mut world, &mut rng);
                let (packet, is_last) = match instead {
                    Some((at, packet)) if at == number => (packet.clone(), true),
                    _ => (generated, false),
                };
                match judge.judge(&mut world, &packet) {
                    Ok(judged) => tally.count(packet.kind, judged),
                    Err(mismatch) => {
                        return Err(Box::new(Failure { number, packet: Some(packet), mismatch }));
                    }
                }
                if is_last {
                    return Ok(());
                }
                number += 1;
            }
            judge.end(&mut world).map_err(|mismatch| Box::new(Failure { number, packet: None, mismatch }))?;
        }
        tally.worlds += 1;
        Ok(())
    }

    /// Each packet has random numbers of its own, so that it is the same whatever became of those before.
    fn rng(&self, number: u64) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_ne_bytes());
        seed[8..16].copy_from_slice(&number.to_ne_bytes());
        StdRng::from_seed(seed)
    }
}

/// A little, mostly; now and then so much that something ends, or is about to.
fn pass_time(world: &mut World<'_>, rng: &mut StdRng) {
    if rng.random_range(0..1200) != 0 {
        world.now += rng.random_range(0..200_000);
        return;
    }
    world.begin_delay();
    let ends: Vec<_> = world.driver.flows.iter().map(|installed| installed.flow.expires).collect();
    if let Some(&end) = ends.choose(rng) {
        let edge = end.saturating_add(rng.random_range(0..3)).saturating_sub(1);
        if edge > world.now && edge < world.now + 400 * SECOND {
            world.now = edge;
        }
    }
}

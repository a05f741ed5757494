//! The limit of bytes per second of each allocation, for both paths together: one word for each, which the kernel
//! program updates by the same rule ([`relay_common::meter`]).

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use relay_common::{
    clock::BootNanos,
    meter::{Rate, UNLIMITED},
};

use super::drops::DropReason;

/// What one allocation is metered by.
#[derive(Debug)]
pub(super) enum Meter {
    /// There is no limit.
    Unlimited,
    /// By this one of the shared words, together with the kernel program.
    Shared(u32),
    /// By a value of its own: no shared word was free, so all its data must be relayed here.
    Private(BootNanos),
}

/// The limit, and the shared words that are free.
pub(super) struct Meters {
    rate: Option<Rate>,
    words: Option<Arc<dyn AsRef<[AtomicU64]> + Send + Sync>>,
    /// Words that were handed out and returned.
    returned: Vec<u32>,
    /// The first word that was never handed out.
    next: u32,
}

impl Meters {
    /// Without shared words.
    pub(super) const fn new(rate: Option<Rate>) -> Self {
        Self { rate, words: None, returned: Vec::new(), next: UNLIMITED + 1 }
    }

    /// Gives out these words from now on, but for the first. To be called before the first [`take`](Self::take).
    pub(super) fn share(&mut self, words: Arc<dyn AsRef<[AtomicU64]> + Send + Sync>) {
        debug_assert_eq!((self.next, self.returned.len()), (UNLIMITED + 1, 0));
        self.words = Some(words);
    }

    /// What a new allocation is metered by; nothing is used up.
    pub(super) fn take(&mut self) -> Meter {
        if self.rate.is_none() {
            return Meter::Unlimited;
        }
        let free = self.returned.pop().unwrap_or(self.next);
        let Some(word) = self.word(free) else { return Meter::Private(0) };
        word.store(0, Ordering::Relaxed);
        self.next = self.next.max(free + 1);
        Meter::Shared(free)
    }

    /// Takes back what an allocation was metered by, whose flows are removed.
    pub(super) fn release(&mut self, meter: &Meter) {
        match *meter {
            Meter::Unlimited | Meter::Private(_) => {}
            Meter::Shared(index) => self.returned.push(index),
        }
    }

    /// Takes so many bytes of application data, which fit a datagram, off what is left.
    pub(super) fn charge(&self, meter: &mut Meter, now: BootNanos, bytes: usize) -> Result<(), DropReason> {
        let Some(rate) = self.rate else { return Ok(()) };
        let bytes = u16::try_from(bytes).expect("a datagram is shorter than 65,536 bytes");
        let admitted = match meter {
            Meter::Unlimited => true,
            Meter::Shared(index) => self.word(*index).is_some_and(|word| {
                let admit = |through| rate.admit(through, now, bytes);
                word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
            }),
            Meter::Private(through) => match rate.admit(*through, now, bytes) {
                Some(next) => {
                    *through = next;
                    true
                }
                None => false,
            },
        };
        if admitted { Ok(()) } else { Err(DropReason::Bandwidth) }
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        (**self.words.as_ref()?).as_ref().get(index as usize)
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("rate", &self.rate).field("next", &self.next).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn meters(words: usize) -> (Meters, Arc<Vec<AtomicU64>>) {
        // 65,535 bytes at once, and then 1000 a second.
        let mut meters = Meters::new(Some(Rate::new(1000, 0)));
        let words = Arc::new((0..words).map(|_| AtomicU64::new(77 * SECOND)).collect::<Vec<_>>());
        meters.share(words.clone());
        (meters, words)
    }

    #[test]
    fn words_are_handed_out_once_at_a_time_and_begin_anew() {
        let (mut meters, words) = meters(3);
        let (mut first, second) = (meters.take(), meters.take());
        assert!(matches!((&first, &second), (Meter::Shared(1), Meter::Shared(2))));
        assert!(matches!(meters.take(), Meter::Private(_)), "all are in use");
        assert_eq!(words[0].load(Ordering::Relaxed), 77 * SECOND, "the first is nobody's");
        assert_eq!(meters.charge(&mut first, SECOND, 65_535), Ok(()));
        assert_eq!(meters.charge(&mut first, SECOND, 1), Err(DropReason::Bandwidth));

        meters.release(&first);
        let mut again = meters.take();
        assert!(matches!(again, Meter::Shared(1)));
        assert_eq!(meters.charge(&mut again, SECOND, 65_535), Ok(()), "nothing of it is used up");
        assert!(matches!(meters.take(), Meter::Private(_)));
    }

    #[test]
    fn what_others_use_up_of_a_shared_word_is_used_up() {
        let (mut meters, words) = meters(2);
        let mut meter = meters.take();
        words[1].store(60 * SECOND, Ordering::Relaxed);
        assert_eq!(meters.charge(&mut meter, SECOND, 6000), Ok(()), "59 s are ahead, and these 6");
        assert_eq!(words[1].load(Ordering::Relaxed), 66 * SECOND);
        assert_eq!(meters.charge(&mut meter, SECOND, 6000), Err(DropReason::Bandwidth));
        assert_eq!(words[1].load(Ordering::Relaxed), 66 * SECOND, "what is refused costs nothing");
        assert_eq!(meters.charge(&mut meter, SECOND, 0), Ok(()));
    }

    #[test]
    fn without_shared_words_each_has_its_own() {
        let mut meters = Meters::new(Some(Rate::new(1000, 0)));
        let (mut first, mut second) = (meters.take(), meters.take());
        for meter in [&mut first, &mut second] {
            assert_eq!(meters.charge(meter, SECOND, 65_535), Ok(()));
            assert_eq!(meters.charge(meter, SECOND, 535), Err(DropReason::Bandwidth));
            assert_eq!(meters.charge(meter, 2 * SECOND, 1000), Ok(()));
        }
        let mut meters = Meters::new(None);
        assert!(matches!(meters.take(), Meter::Unlimited));
    }

    #[test]
    fn threads_that_share_a_word_are_admitted_no_more_than_one() {
        let (mut meters, words) = meters(2);
        assert!(matches!(meters.take(), Meter::Shared(1)));
        let rate = Rate::new(1000, 0);
        let admitted: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let words = words.clone();
                    scope.spawn(move || {
                        let mut sharing = Meters::new(Some(rate));
                        sharing.share(words);
                        let mut meter = Meter::Shared(1);
                        (0..10_000).filter(|_| sharing.charge(&mut meter, SECOND, 7).is_ok()).count() as u64
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 65_535 / 7);
    }
}

//! Waiting for a condition, with a bound that only a hang reaches.

use std::time::{Duration, Instant};

/// Asks `condition` until it has a value; `None` if it has none within `bound`.
pub fn until<T>(bound: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

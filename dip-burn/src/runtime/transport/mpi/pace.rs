//! How long the MPI thread sleeps between two looks at the network.

use std::time::{Duration, Instant};

/// How long it looks without a pause after something has happened, while somebody waits.
const EAGER: Duration = Duration::from_micros(50);
/// Pauses while somebody waits.
const WAITED_FOR: [Duration; 2] = [Duration::from_micros(20), Duration::from_micros(200)];
/// Pauses while nobody waits.
const IN_PASSING: [Duration; 2] = [Duration::from_micros(200), Duration::from_millis(2)];
/// A pause is this part of the time since something has happened.
const SHARE: u32 = 20;

/// The pace of a thread that polls.
pub(super) struct Pace {
    last: Instant,
}

impl Pace {
    pub fn new() -> Self {
        Self { last: Instant::now() }
    }

    /// Notes that something has happened.
    pub fn hurry(&mut self) {
        self.last = Instant::now();
    }

    /// The next pause; `None` to look again at once.
    pub fn pause(&self, is_waited_for: bool) -> Option<Duration> {
        let idle = self.last.elapsed();
        if is_waited_for && idle < EAGER {
            return None;
        }
        let [least, most] = if is_waited_for { WAITED_FOR } else { IN_PASSING };
        Some((idle / SHARE).clamp(least, most))
    }
}

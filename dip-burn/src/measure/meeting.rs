//! A barrier that threads can leave.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Lets threads wait for each other. A thread that leaves, because it is done or has failed, is not waited for any more.
pub(super) struct Meeting {
    state: Mutex<State>,
    opened: Condvar,
}

struct State {
    members: usize,
    waiting: usize,
    /// Counts how often all members have met.
    round: u64,
}

/// A thread of a meeting, which leaves when this is dropped, also in a panic.
pub(super) struct Attendance<'a>(&'a Meeting);

impl Meeting {
    /// A meeting of so many threads, each of which must [`attend`](Self::attend).
    pub fn new(members: usize) -> Self {
        let state = State { members, waiting: 0, round: 0 };
        Self { state: Mutex::new(state), opened: Condvar::new() }
    }

    /// Makes the calling thread leave the meeting when the result is dropped.
    pub fn attend(&self) -> Attendance<'_> {
        Attendance(self)
    }

    /// Waits until all members wait.
    pub fn wait(&self) {
        let mut state = self.lock();
        state.waiting += 1;
        if self.open(&mut state) {
            return;
        }
        let round = state.round;
        while state.round == round {
            state = self.opened.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Starts the next round if all members wait; returns true if it did.
    fn open(&self, state: &mut State) -> bool {
        let all_wait = state.waiting >= state.members;
        if all_wait {
            state.waiting = 0;
            state.round += 1;
            self.opened.notify_all();
        }
        all_wait
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Attendance<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.members -= 1;
        self.0.open(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn threads_meet_in_every_round_and_do_not_wait_for_one_that_fails() {
        let (meeting, met) = (Meeting::new(3), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (meeting, met) = (&meeting, &met);
                scope.spawn(move || {
                    let failed = catch_unwind(AssertUnwindSafe(|| {
                        let _attendance = meeting.attend();
                        for round in 0..100 {
                            assert!(thread != 1 || round < 40, "one thread fails");
                            meeting.wait();
                            met.fetch_add(1, Ordering::Relaxed);
                        }
                    }));
                    assert_eq!(failed.is_err(), thread == 1);
                });
            }
        });
        assert_eq!(met.into_inner(), 100 + 40 + 100);
    }
}

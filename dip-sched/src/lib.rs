//! dip-sched.

//! dip.

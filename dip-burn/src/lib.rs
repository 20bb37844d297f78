//! dip-burn.

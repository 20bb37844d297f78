//! dip-emu.

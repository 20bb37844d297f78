//! Memory strategies for a given order (paper section 2, phase 3).

mod select;
mod upgrade;

pub(super) use upgrade::upgrade;

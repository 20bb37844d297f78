//! A packing rule: the newest document that fits comes next.

use dip::train::data::{Fitting, PackingRule, Room};

use crate::uses::Uses;

#[derive(Debug)]
pub struct NewestFirst(pub Uses);

impl PackingRule for NewestFirst {
    fn name(&self) -> &str {
        "newest-first"
    }

    fn next(&self, _: &[Fitting], _: Room, fitting: &[Fitting]) -> Option<usize> {
        self.0.add("packing rule");
        fitting.len().checked_sub(1)
    }
}

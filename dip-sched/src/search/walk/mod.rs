//! Tabu walks from good orders.

mod moves;
mod overflow;
mod rebuild;
mod selection;
mod tabu;
mod walker;

pub(in crate::search) use walker::{Found, Walker};

//! Operators, and how long a device takes for them (paper section 3).
//!
//! [`Machine`] times one [`Operator`], [`Dag`] times the operators of one part of a model with their dependencies.

mod dag;
mod machine;
mod operator;

pub use dag::{Dag, TensorId, Work};
pub use machine::{Machine, OperatorRule};
pub use operator::{Operator, OperatorKind, Pass};

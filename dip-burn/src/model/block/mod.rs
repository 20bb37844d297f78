//! The building blocks of all modules, forward and backward.
//!
//! | file | holds |
//! |---|---|
//! | `layer` | runs of layers under memory strategies, and the pre-norm transformer layer |
//! | `attention`, `core`, `rotary` | attention: projections, scores and weighted sums, rotary positions |
//! | `geometry`, `span`, `heads` | positions; which queries attend to which keys; rows as heads |
//! | `cache` | keys and values of the tokens that a decoder has seen |
//! | `feed_forward`, `norm` | the other parts of a layer |
//! | `linear` | linear layers with low-rank adapters |
//! | `packed` | which sequences attention computes all at once |
//! | `merger` | the adapter of an encoder: neighbouring patches become one token of the decoder |
//! | `columns` | tensors side by side in one activation |

pub mod attention;
pub mod cache;
pub(in crate::model) mod columns;
pub mod core;
pub mod feed_forward;
pub mod geometry;
pub mod heads;
pub mod layer;
pub mod linear;
pub mod merger;
pub(crate) mod norm;
mod packed;
pub mod rotary;
pub mod span;
#[cfg(test)]
mod tests;

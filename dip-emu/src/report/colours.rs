//! Colours that all figures share.

use dip_core::TaskKind;

use super::bubbles::BubbleCause;

/// Colours of modules that most people tell apart: forward, backward and weight gradient, from light to dark, so that they also
/// differ in grey. They repeat for further modules.
const MODULES: [[&str; 3]; 8] = [
    ["#78ade2", "#2b7aca", "#1e578f"],
    ["#e2b678", "#ca882b", "#8f601e"],
    ["#78e2b6", "#2bca88", "#1e8f60"],
    ["#e278b6", "#ca2b88", "#8f1e60"],
    ["#a578e2", "#6d2bca", "#4d1e8f"],
    ["#e2e278", "#caca2b", "#8f8f1e"],
    ["#78dae2", "#2bbdca", "#1e868f"],
    ["#e28178", "#ca382b", "#8f281e"],
];

/// The colours of a module: forward, backward, weight gradient.
pub fn module(index: usize) -> [&'static str; 3] {
    MODULES[index % MODULES.len()]
}

/// The place of a kind in [`module`].
pub fn shade(kind: TaskKind) -> usize {
    match kind {
        TaskKind::Forward => 0,
        TaskKind::Backward => 1,
        TaskKind::Weight => 2,
    }
}

/// The colour of a bubble.
pub fn cause(cause: BubbleCause) -> &'static str {
    match cause {
        BubbleCause::Dependency => "#9aa4b1",
        BubbleCause::Communication => "#5cc2d6",
        BubbleCause::Memory => "#e0564a",
        BubbleCause::Order => "#b58adf",
        BubbleCause::Late => "#efa13a",
        BubbleCause::Runtime => "#7d6b5d",
        BubbleCause::Imbalance => "#d3d8de",
    }
}

//! The compared variants of running a batch.

/// A schedule, a memory strategy and a layout for a batch.
#[derive(Clone, Copy)]
pub struct Variant {
    pub name: &'static str,
    pub schedule: &'static str,
    /// True to split weight gradients (W).
    pub split: bool,
    pub strategy: &'static str,
    pub layout: Layout,
    /// Most microbatches of each batch.
    pub microbatches: usize,
}

/// The placement of layers, and the split of batches.
#[derive(Clone, Copy)]
pub enum Layout {
    /// The placement that the schedule asks for.
    Usual,
    /// Segments of each module.
    Segments(u32),
    /// Layers of each module on rank 0; the others are on rank 1.
    Layers(&'static [u32]),
    /// Instances of a sub-microbatch of the first module.
    Slices(u32),
    /// Clips and captions of a sub-microbatch.
    Clips(u32),
}

const ALL: usize = usize::MAX;

const fn variant(name: &'static str, schedule: &'static str, split: bool) -> Variant {
    Variant { name, schedule, split, strategy: "keep", layout: Layout::Usual, microbatches: ALL }
}

impl Variant {
    const fn strategy(self, strategy: &'static str) -> Self {
        Self { strategy, ..self }
    }

    const fn layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    const fn microbatches(self, microbatches: usize) -> Self {
        Self { microbatches, ..self }
    }
}

pub const VLM: &[Variant] = &[
    variant("gpipe", "gpipe", false),
    variant("1f1b", "1f1b", false),
    variant("1f1b, full recompute", "1f1b", false).strategy("full"),
    variant("1f1b, selective recompute", "1f1b", false).strategy("selective"),
    variant("1f1b, offload", "1f1b", false).strategy("offload"),
    variant("1f1b, vision 4 | language 4", "1f1b", false).layout(Layout::Layers(&[4, 0])),
    variant("1f1b, 3 microbatches", "1f1b", false).microbatches(3),
    variant("interleaved", "interleaved", false),
    variant("zero bubble", "zero_bubble", true),
    variant("optimus", "optimus", false),
    variant("optimus, 2 segments", "optimus", false).layout(Layout::Segments(2)),
    variant("dip", "dip", true),
    variant("dip, joint weights", "dip", false),
    variant("dip, 2 segments", "dip", true).layout(Layout::Segments(2)),
    variant("dip, 2 images a slice", "dip", true).layout(Layout::Slices(2)),
    variant("dip, full recompute", "dip", true).strategy("full"),
];

pub const DECODER: &[Variant] = &[
    variant("gpipe", "gpipe", false),
    variant("1f1b", "1f1b", false),
    variant("1f1b, full recompute", "1f1b", false).strategy("full"),
    variant("1f1b, selective recompute", "1f1b", false).strategy("selective"),
    variant("1f1b, offload", "1f1b", false).strategy("offload"),
    variant("1f1b, 2 | 6 layers", "1f1b", false).layout(Layout::Layers(&[2])),
    variant("1f1b, 6 | 2 layers", "1f1b", false).layout(Layout::Layers(&[6])),
    variant("1f1b, 2 microbatches", "1f1b", false).microbatches(2),
    variant("1f1b, 4 microbatches", "1f1b", false).microbatches(4),
    variant("gpipe, 1 | 7 layers", "gpipe", false).layout(Layout::Layers(&[1])),
    variant("gpipe, full recompute, 5 | 3 layers", "gpipe", false)
        .strategy("full")
        .layout(Layout::Layers(&[5])),
    variant("interleaved", "interleaved", false),
    variant("zero bubble", "zero_bubble", true),
    variant("dip", "dip", true),
    variant("dip, joint weights", "dip", false),
    variant("dip, 4 segments", "dip", true).layout(Layout::Segments(4)),
];

pub const VIDEO: &[Variant] = &[
    variant("gpipe", "gpipe", false),
    variant("1f1b", "1f1b", false),
    variant("1f1b, full recompute", "1f1b", false).strategy("full"),
    variant("1f1b, selective recompute", "1f1b", false).strategy("selective"),
    variant("1f1b, offload", "1f1b", false).strategy("offload"),
    variant("1f1b, 2 microbatches", "1f1b", false).microbatches(2),
    variant("interleaved", "interleaved", false),
    variant("zero bubble", "zero_bubble", true),
    variant("optimus", "optimus", false),
    variant("optimus, 2 segments", "optimus", false).layout(Layout::Segments(2)),
    variant("dip", "dip", true),
    variant("dip, joint weights", "dip", false),
    variant("dip, 2 clips a slice", "dip", true).layout(Layout::Clips(2)),
];

//! The ways to run a batch that are compared.

/// One way to run a batch.
#[derive(Clone, Copy)]
pub struct Way {
    pub name: &'static str,
    pub schedule: &'static str,
    /// Whether weight gradients are tasks of their own.
    pub split: bool,
    pub strategy: &'static str,
    pub cut: Cut,
    /// Microbatches that are left of each batch.
    pub microbatches: usize,
}

/// How the layers are placed.
#[derive(Clone, Copy)]
pub enum Cut {
    /// As the schedule is meant to be used.
    Usual,
    /// Segments of each module.
    Segments(u32),
    /// Layers of each module on rank 0, the others on rank 1.
    Layers(&'static [u32]),
    /// Instances of a sub-microbatch of the first module.
    Slices(u32),
    /// Clips and captions of a sub-microbatch.
    Clips(u32),
}

const ALL: usize = usize::MAX;

const fn way(name: &'static str, schedule: &'static str, split: bool) -> Way {
    Way { name, schedule, split, strategy: "keep", cut: Cut::Usual, microbatches: ALL }
}

impl Way {
    const fn strategy(self, strategy: &'static str) -> Self {
        Self { strategy, ..self }
    }

    const fn cut(self, cut: Cut) -> Self {
        Self { cut, ..self }
    }

    const fn microbatches(self, microbatches: usize) -> Self {
        Self { microbatches, ..self }
    }
}

pub const VLM: &[Way] = &[
    way("gpipe", "gpipe", false),
    way("1f1b", "1f1b", false),
    way("1f1b, full recompute", "1f1b", false).strategy("full"),
    way("1f1b, selective recompute", "1f1b", false).strategy("selective"),
    way("1f1b, offload", "1f1b", false).strategy("offload"),
    way("1f1b, vision 4 | language 4", "1f1b", false).cut(Cut::Layers(&[4, 0])),
    way("1f1b, 3 microbatches", "1f1b", false).microbatches(3),
    way("interleaved", "interleaved", false),
    way("zero bubble", "zero_bubble", true),
    way("optimus", "optimus", false),
    way("optimus, 2 segments", "optimus", false).cut(Cut::Segments(2)),
    way("dip", "dip", true),
    way("dip, joint weights", "dip", false),
    way("dip, 2 segments", "dip", true).cut(Cut::Segments(2)),
    way("dip, 2 images a slice", "dip", true).cut(Cut::Slices(2)),
    way("dip, full recompute", "dip", true).strategy("full"),
];

pub const DECODER: &[Way] = &[
    way("gpipe", "gpipe", false),
    way("1f1b", "1f1b", false),
    way("1f1b, full recompute", "1f1b", false).strategy("full"),
    way("1f1b, selective recompute", "1f1b", false).strategy("selective"),
    way("1f1b, offload", "1f1b", false).strategy("offload"),
    way("1f1b, 2 | 6 layers", "1f1b", false).cut(Cut::Layers(&[2])),
    way("1f1b, 6 | 2 layers", "1f1b", false).cut(Cut::Layers(&[6])),
    way("1f1b, 2 microbatches", "1f1b", false).microbatches(2),
    way("1f1b, 4 microbatches", "1f1b", false).microbatches(4),
    way("gpipe, 1 | 7 layers", "gpipe", false).cut(Cut::Layers(&[1])),
    way("gpipe, full recompute, 5 | 3 layers", "gpipe", false)
        .strategy("full")
        .cut(Cut::Layers(&[5])),
    way("interleaved", "interleaved", false),
    way("zero bubble", "zero_bubble", true),
    way("dip", "dip", true),
    way("dip, joint weights", "dip", false),
    way("dip, 4 segments", "dip", true).cut(Cut::Segments(4)),
];

pub const VIDEO: &[Way] = &[
    way("gpipe", "gpipe", false),
    way("1f1b", "1f1b", false),
    way("1f1b, full recompute", "1f1b", false).strategy("full"),
    way("1f1b, selective recompute", "1f1b", false).strategy("selective"),
    way("1f1b, offload", "1f1b", false).strategy("offload"),
    way("1f1b, 2 microbatches", "1f1b", false).microbatches(2),
    way("interleaved", "interleaved", false),
    way("zero bubble", "zero_bubble", true),
    way("optimus", "optimus", false),
    way("optimus, 2 segments", "optimus", false).cut(Cut::Segments(2)),
    way("dip", "dip", true),
    way("dip, joint weights", "dip", false),
    way("dip, 2 clips a slice", "dip", true).cut(Cut::Clips(2)),
];

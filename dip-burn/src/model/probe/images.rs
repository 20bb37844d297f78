//! The sizes of the images on which modules are measured.

use dip_core::{ImageSize, MicrobatchMeta, ModelSpec, ModuleId, VitSpec, Workload};

use crate::batch::{ImageLayout, ViewGrid};

/// Images whose sizes are not measured beyond this number.
const MOST_IMAGES: u32 = 64;

/// The images of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbeImages {
    /// Squares of the model's own size.
    #[default]
    Own,
    /// Images of about the model's own size, none like the next, as in a model that keeps proportions.
    Mixed,
    /// Images of the largest size.
    Largest,
    /// Images of the smallest size, none like the next.
    Smallest,
    /// A square and an image twice as wide. They have the patches of [`Wide`](Self::Wide), but fewer attention pairs.
    SquareAndWide,
    /// One image three times as wide as a square.
    Wide,
}

impl ProbeImages {
    /// Typical images of a model.
    pub fn typical(model: &ModelSpec) -> Self {
        if native(model).is_some() { Self::Mixed } else { Self::Own }
    }

    /// The layouts of `count` images of an encoder.
    pub(super) fn layouts(self, vit: &VitSpec, count: usize) -> Vec<ImageLayout> {
        let token_px = (vit.patch_px * vit.merge).max(1);
        let own = (vit.image_px / token_px).max(1);
        let side_of = |tokens: u32| tokens.isqrt().max(1);
        let smallest = vit.native.map_or(own, |range| {
            side_of((range.min_pixels / u64::from(token_px).pow(2)).try_into().unwrap_or(u32::MAX))
        });
        let layout = |i: usize| {
            let [rows, columns] = match self {
                Self::Own => return ImageLayout::square(vit),
                // One column more, or one less, in every second image.
                Self::Mixed => [own, [own, own + 1, own, own.saturating_sub(1).max(1)][i % 4]],
                Self::Largest => [side_of(vit.largest_size().tokens); 2],
                Self::Smallest => [smallest, smallest + (i % 2) as u32],
                Self::SquareAndWide => [own, own * (1 + (i % 2) as u32)],
                Self::Wide => [own, own * 3],
            };
            let grid = ViewGrid::still(rows * vit.merge, columns * vit.merge);
            ImageLayout { views: vec![grid], tokens: rows * columns, ..ImageLayout::default() }
        };
        (0..count).map(layout).collect()
    }

    /// The number of such images that have about as many patches as half of the images of a microbatch.
    pub fn count(self, model: &ModelSpec) -> u32 {
        let Some(vit) = native(model) else { return 1 };
        let one = self.layouts(vit, 1).iter().map(ImageLayout::patches).sum::<u64>().max(1);
        u32::try_from(model.patch_limit() / 2 / one).unwrap_or(u32::MAX).clamp(1, MOST_IMAGES)
    }
}

/// The encoder of a model that keeps proportions.
pub(super) fn native(model: &ModelSpec) -> Option<&VitSpec> {
    let vit = model.modules.iter().find_map(|module| module.kind.get::<VitSpec>());
    vit.filter(|vit| vit.native.is_some())
}

/// The work of a module for images of these layouts.
pub(super) fn work_of(model: &ModelSpec, module: ModuleId, layouts: &[ImageLayout]) -> Workload {
    let sizes: Vec<ImageSize> = layouts.iter().map(ImageLayout::size).collect();
    let count = sizes.len() as u32;
    let meta = MicrobatchMeta { images: sizes.into(), ..MicrobatchMeta::default() };
    model.workload(module, &meta, 0..count)
}

//! The number of shapes that a generated caption names correctly.

use crate::data::toy::{Colour, Shape};

/// The number of shapes of a scene that a caption names correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaptionMatch {
    /// Shapes with the right colour and shape, in their place from left to right.
    pub right: usize,
    /// Shapes of the scene, or of the caption if it names more.
    pub shapes: usize,
}

impl CaptionMatch {
    /// True if the whole caption is right.
    pub fn all(self) -> bool {
        self.right == self.shapes
    }
}

/// Compares a generated caption with the scene's own, shape by shape from left to right. `None` if `reference` is not the
/// caption of a scene.
pub fn match_caption(reference: &str, generated: &str) -> Option<CaptionMatch> {
    let (reference, generated) = (parts(reference), parts(generated));
    reference.iter().all(|part| is_shape(part)).then(|| CaptionMatch {
        right: reference.iter().zip(&generated).filter(|(a, b)| a == b).count(),
        shapes: reference.len().max(generated.len()),
    })
}

fn parts(caption: &str) -> Vec<String> {
    let caption = caption.trim().trim_end_matches('.').replace(" and ", ", ");
    caption.split(", ").map(str::to_owned).collect()
}

/// True for a text such as `a red ring`.
fn is_shape(part: &str) -> bool {
    let words: Vec<&str> = part.split(' ').collect();
    let ["a", colour, shape] = words[..] else { return false };
    Colour::ALL.iter().any(|c| c.name() == colour) && Shape::ALL.iter().any(|s| s.name() == shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_right_shape_by_shape_in_order() {
        let of = |text| {
            let m = match_caption("a red ring and a blue cross.", text).unwrap();
            (m.right, m.shapes, m.all())
        };
        assert_eq!(of("a red ring and a blue cross."), (2, 2, true));
        assert_eq!(of("a blue cross and a red ring."), (0, 2, false));
        assert_eq!(of("a red ring, a blue cross and a red ring"), (2, 3, false));
        assert_eq!(of("a red ring"), (1, 2, false));
        assert_eq!(of(""), (0, 2, false));
        assert_eq!(match_caption("a photo of a ring", "a red ring"), None);
    }
}

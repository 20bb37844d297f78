//! How right a generated caption is.

use super::Scene;

/// How many shapes of a scene a caption names rightly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaptionMatch {
    /// Shapes whose colour and shape are right, in their place from left to right.
    pub right: usize,
    /// Shapes of the scene, or of the caption where it names more.
    pub shapes: usize,
}

impl CaptionMatch {
    /// Whether the whole caption is right.
    pub fn all(self) -> bool {
        self.right == self.shapes
    }
}

/// Compares a caption with a scene, shape by shape from left to right.
pub fn caption_matches(scene: &Scene, caption: &str) -> CaptionMatch {
    let truth = scene.caption();
    let parts = |text: &str| -> Vec<String> {
        let text = text.trim().trim_end_matches('.').replace(" and ", ", ");
        text.split(", ").map(str::to_owned).collect()
    };
    let (truth, caption) = (parts(&truth), parts(caption));
    CaptionMatch {
        right: truth.iter().zip(&caption).filter(|(a, b)| a == b).count(),
        shapes: truth.len().max(caption.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Colour, Object, Shape};
    use super::*;

    #[test]
    fn a_caption_is_right_shape_by_shape_in_order() {
        let object = |colour, shape| Object { colour, shape, x: 0.5, y: 0.5, radius: 0.1 };
        let objects = vec![object(Colour::Red, Shape::Ring), object(Colour::Blue, Shape::Cross)];
        let scene = Scene { objects, ground: 1.0 };
        let of = |text| {
            let m = caption_matches(&scene, text);
            (m.right, m.shapes, m.all())
        };
        assert_eq!(of("a red ring and a blue cross."), (2, 2, true));
        assert_eq!(of("a blue cross and a red ring."), (0, 2, false));
        assert_eq!(of("a red ring, a blue cross and a red ring"), (2, 3, false));
        assert_eq!(of("a red ring"), (1, 2, false));
        assert_eq!(of(""), (0, 2, false));
    }
}

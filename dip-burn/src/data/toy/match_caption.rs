//! The number of shapes or notes that a generated caption names correctly.

use super::{Colour, Pitch, Shape, Tone};

/// The number of shapes of a scene, or of notes of a melody, that a caption names correctly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaptionMatch {
    /// Shapes with the right colour and shape, or notes with the right pitch and tone, in their place.
    pub right: usize,
    /// Shapes or notes, or names in the caption if there are more.
    pub named: usize,
}

impl CaptionMatch {
    /// True if the whole caption is right.
    pub fn all(self) -> bool {
        self.right == self.named
    }
}

/// Compares a generated caption with the own caption of a scene or melody, name by name. `None` if `reference` is not such a
/// caption.
pub fn match_caption(reference: &str, generated: &str) -> Option<CaptionMatch> {
    let (reference, generated) = (parts(reference), parts(generated));
    reference.iter().all(|part| is_name(part)).then(|| CaptionMatch {
        right: reference.iter().zip(&generated).filter(|(a, b)| a == b).count(),
        named: reference.len().max(generated.len()),
    })
}

fn parts(caption: &str) -> Vec<String> {
    let caption = caption.trim().trim_end_matches('.').replace(" and ", ", ");
    caption.split(", ").map(str::to_owned).collect()
}

/// True for a text such as `a red ring` or `a low hum`.
fn is_name(part: &str) -> bool {
    let words: Vec<&str> = part.split(' ').collect();
    let ["a", first, second] = words[..] else { return false };
    let is_shape = || {
        let colour = Colour::ALL.iter().any(|colour| colour.name() == first);
        colour && Shape::ALL.iter().any(|shape| shape.name() == second)
    };
    let is_note = || {
        let pitch = Pitch::ALL.iter().any(|pitch| pitch.name() == first);
        pitch && Tone::ALL.iter().any(|tone| tone.name() == second)
    };
    is_shape() || is_note()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_right_shape_by_shape_in_order() {
        let of = |text| {
            let m = match_caption("a red ring and a blue cross.", text).unwrap();
            (m.right, m.named, m.all())
        };
        assert_eq!(of("a red ring and a blue cross."), (2, 2, true));
        assert_eq!(of("a blue cross and a red ring."), (0, 2, false));
        assert_eq!(of("a red ring, a blue cross and a red ring"), (2, 3, false));
        assert_eq!(of("a red ring"), (1, 2, false));
        assert_eq!(of(""), (0, 2, false));
        assert!(match_caption("a low hum.", "a low hum").unwrap().all());
        assert_eq!(match_caption("a low ring", "a low ring"), None);
        assert_eq!(match_caption("a photo of a ring", "a red ring"), None);
    }
}

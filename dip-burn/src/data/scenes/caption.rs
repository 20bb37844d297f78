//! The words of a scene, and how a generated caption is judged.

use super::draw::{Colour, Scene, Shape};

impl Scene {
    /// Names the shapes from left to right: `a red circle, a blue square and a green cross`.
    pub fn caption(&self) -> String {
        let names = self.objects.iter().map(|o| format!("a {} {}", o.colour.name(), o.shape.name()));
        let names: Vec<String> = names.collect();
        match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => String::new(),
        }
    }
}

/// How far a generated caption agrees with the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CaptionMatch {
    /// Objects that the reference names.
    pub objects: usize,
    /// Objects with the right colour and form at the right place in the order.
    pub right: usize,
    /// Places in the order with the right colour.
    pub colours: usize,
    /// Places in the order with the right form.
    pub shapes: usize,
    /// Objects that the generated caption names.
    pub generated: usize,
}

impl CaptionMatch {
    /// Whether every object is right, and none is too many.
    pub fn is_right(&self) -> bool {
        self.right == self.objects && self.generated == self.objects
    }
}

/// Compares the objects of two captions place by place.
pub fn caption_matches(generated: &str, reference: &str) -> CaptionMatch {
    let (generated, reference) = (objects(generated), objects(reference));
    let count = |same: fn(&(Colour, Shape), &(Colour, Shape)) -> bool| {
        generated.iter().zip(&reference).filter(|(g, r)| same(g, r)).count()
    };
    CaptionMatch {
        objects: reference.len(),
        right: count(|g, r| g == r),
        colours: count(|g, r| g.0 == r.0),
        shapes: count(|g, r| g.1 == r.1),
        generated: generated.len(),
    }
}

/// The pairs of a colour and the form right behind it.
fn objects(caption: &str) -> Vec<(Colour, Shape)> {
    let words: Vec<&str> = caption.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let object = |pair: &[&str]| {
        let colour = Colour::ALL.into_iter().find(|c| c.name() == pair[0])?;
        let shape = Shape::ALL.into_iter().find(|s| s.name() == pair[1])?;
        Some((colour, shape))
    };
    words.windows(2).filter_map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caption_is_judged_object_by_object() {
        let reference = "a red circle, a blue square and a green cross";
        assert!(caption_matches(reference, reference).is_right());
        let m = caption_matches("a red circle, a green square", reference);
        assert_eq!((m.objects, m.right, m.colours, m.shapes, m.generated), (3, 1, 1, 2, 2));
        assert!(!m.is_right());
        assert!(!caption_matches("a red circle and a red circle", "a red circle").is_right());
        assert_eq!(caption_matches("red red circlecircle", "a red circle").right, 0);
        assert_eq!(caption_matches("", ""), CaptionMatch::default());
    }
}

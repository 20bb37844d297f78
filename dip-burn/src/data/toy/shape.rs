//! Coloured shapes, the content of the toy data.

/// Sample points along each side of a pixel; several make edges smooth.
const SAMPLES: u32 = 3;

/// A colour with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Black,
}

/// A shape with its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Shape {
    Ring,
    Square,
    Triangle,
    Cross,
}

/// A coloured shape at its place in a picture. Lengths are fractions of the picture's shorter side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Its colour.
    pub colour: Colour,
    /// Its shape.
    pub shape: Shape,
    /// Centre, from the left.
    pub x: f32,
    /// Centre, from the top.
    pub y: f32,
    /// Half of its width.
    pub radius: f32,
}

/// Which combinations of colours and shapes are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataSplit {
    /// The combinations to train on.
    Train,
    /// One combination in eight, which training never sees.
    HeldOut,
}

impl Colour {
    /// Every colour.
    pub const ALL: [Self; 6] =
        [Self::Red, Self::Green, Self::Blue, Self::Yellow, Self::Purple, Self::Black];

    /// Its name in captions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Purple => "purple",
            Self::Black => "black",
        }
    }

    /// Red, green and blue, 0 to 1.
    pub(super) const fn rgb(self) -> [f32; 3] {
        match self {
            Self::Red => [0.9, 0.1, 0.1],
            Self::Green => [0.1, 0.7, 0.2],
            Self::Blue => [0.1, 0.3, 0.9],
            Self::Yellow => [0.95, 0.85, 0.1],
            Self::Purple => [0.6, 0.2, 0.8],
            Self::Black => [0.05, 0.05, 0.05],
        }
    }
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 4] = [Self::Ring, Self::Square, Self::Triangle, Self::Cross];

    /// Its name in captions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Cross => "cross",
        }
    }
}

impl Object {
    /// True if the object covers the point `u` from the left and `v` from the top.
    pub(super) fn covers(&self, u: f32, v: f32) -> bool {
        let (x, y) = ((u - self.x) / self.radius, (v - self.y) / self.radius);
        match self.shape {
            Shape::Ring => (0.3..=1.0).contains(&(x * x + y * y)),
            Shape::Square => x.abs() <= 0.85 && y.abs() <= 0.85,
            Shape::Triangle => y <= 0.9 && y >= 2.0 * x.abs() - 1.0,
            Shape::Cross => x.abs().min(y.abs()) <= 0.3 && x.abs().max(y.abs()) <= 1.0,
        }
    }
}

/// The sample points of pixel (`x`, `y`), in units of `unit_px` pixels.
pub(super) fn sample_points(x: u32, y: u32, unit_px: f32) -> impl Iterator<Item = (f32, f32)> {
    let at = move |pixel: u32, i: u32| (pixel as f32 + (i as f32 + 0.5) / SAMPLES as f32) / unit_px;
    (0..SAMPLES * SAMPLES).map(move |i| (at(x, i % SAMPLES), at(y, i / SAMPLES)))
}

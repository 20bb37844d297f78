//! Lines and bent lines through measured times, by least squares of the relative error.

use super::calibration::FitError;
use crate::operators::OperatorKind;

/// Measured sizes and times of one kind of operator.
pub struct Points(Vec<(f64, f64)>);

impl Points {
    /// Points of `(size, seconds)`.
    pub fn new(points: impl Iterator<Item = (f64, f64)>) -> Self {
        Self(points.collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The points with `fixed` subtracted from every time. Drops points that took no longer than that.
    pub fn minus(self, fixed: f64) -> Self {
        Self(self.0.into_iter().map(|(x, t)| (x, t - fixed)).filter(|p| p.1 > 0.0).collect())
    }

    /// The number of different sizes.
    fn sizes(&self) -> usize {
        let mut sizes: Vec<f64> = self.0.iter().map(|p| p.0).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        sizes.len()
    }
}

/// `time = fixed + slope * size`; neither is negative.
pub struct FittedLine {
    pub fixed: f64,
    pub slope: f64,
}

impl FittedLine {
    pub fn fit(points: &Points, kind: OperatorKind) -> Result<Self, FitError> {
        let found = points.sizes();
        if found < 2 {
            return Err(FitError::TooFew { kind, found, needed: 2 });
        }
        // Minimises the squares of (fixed + slope x) / t - 1.
        let (mut aa, mut ab, mut bb, mut a, mut b) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for &(x, t) in &points.0 {
            let (u, v) = (1.0 / t, x / t);
            aa += u * u;
            ab += u * v;
            bb += v * v;
            a += u;
            b += v;
        }
        let determinant = aa * bb - ab * ab;
        let (fixed, slope) = ((a * bb - b * ab) / determinant, (b * aa - a * ab) / determinant);
        if slope > 0.0 && fixed >= 0.0 {
            return Ok(Self { fixed, slope });
        }
        if slope <= 0.0 || !slope.is_finite() {
            return Err(FitError::NoGrowth { kind });
        }
        Ok(Self { fixed: 0.0, slope: b / bb })
    }

    /// The slope of a line without a fixed time.
    pub fn slope_through_origin(points: &Points, kind: OperatorKind) -> Result<f64, FitError> {
        let (b, bb) = points.0.iter().fold((0.0, 0.0), |(b, bb), &(x, t)| {
            let v = x / t;
            (b + v, bb + v * v)
        });
        match points.sizes() {
            0 => Err(FitError::TooFew { kind, found: 0, needed: 1 }),
            _ if b > 0.0 => Ok(b / bb),
            _ => Err(FitError::NoGrowth { kind }),
        }
    }
}

/// A line that bends upwards at most once: small operators fit in caches.
pub struct BentLine {
    /// The line up to the bend.
    pub near: FittedLine,
    /// The size at the bend; 0 for a straight line.
    pub bend: f64,
    /// The slope beyond the bend.
    pub far_slope: f64,
}

impl BentLine {
    /// Tries a bend at every measured size and keeps the best. Stays straight if no bend is better.
    pub fn fit(points: &Points, kind: OperatorKind) -> Result<Self, FitError> {
        let line = FittedLine::fit(points, kind)?;
        let straight = Self { far_slope: line.slope, near: line, bend: 0.0 };
        let mut best = (straight.squares(points), straight);
        for &(bend, _) in &points.0 {
            let (near, far): (Vec<_>, Vec<_>) = points.0.iter().partition(|p| p.0 <= bend);
            let (near, far) = (Points(near), Points(far));
            if near.sizes().min(far.sizes()) < 3 {
                continue;
            }
            let Some(bent) = Self::bent_at(bend, &near, &far, kind) else { continue };
            let squares = bent.squares(points);
            if squares < best.0 {
                best = (squares, bent);
            }
        }
        Ok(best.1)
    }

    fn bent_at(bend: f64, near: &Points, far: &Points, kind: OperatorKind) -> Option<Self> {
        let near = FittedLine::fit(near, kind).ok()?;
        // Minimises the squares of (start + far_slope (x - bend)) / t - 1.
        let start = near.fixed + near.slope * bend;
        let (above, weights) = far.0.iter().fold((0.0, 0.0), |(above, weights), &(x, t)| {
            let v = (x - bend) / t;
            (above + v * (1.0 - start / t), weights + v * v)
        });
        let far_slope = above / weights;
        (far_slope > near.slope).then_some(Self { near, bend, far_slope })
    }

    /// The sum of the squared relative errors.
    fn squares(&self, points: &Points) -> f64 {
        let at = |x: f64| {
            let beyond = self.far_slope * (x - self.bend).max(0.0);
            self.near.fixed + self.near.slope * x.min(self.bend) + beyond
        };
        points.0.iter().map(|&(x, t)| (at(x) / t - 1.0).powi(2)).sum()
    }
}

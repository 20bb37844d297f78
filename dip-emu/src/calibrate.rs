//! Fits the factors of a cluster to measured operators (paper section 3: micro-benchmarks of products and collectives).
//!
//! With the data sheet given, the latency of each kind of operator is a line: a fixed cost and a slope. Elementwise
//! operators give `launch_s`, `memory` and, with a bend, `cached` and `cache_bytes`; products `saturation_flop` and `matmul`, attention its slope, messages
//! `latency_s` and `network`, copies to the host the bandwidth of its link. Lines minimise the relative error, so that small operators count as much as large ones.

mod profile;

use dip_core::{ClusterSpec, ModelSpec, OperatorTime, Seconds};
use thiserror::Error;

use crate::ops::{Machine, Operator, OperatorKind};

pub use profile::fit_profile;

/// One operator that was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// What ran.
    pub operator: Operator,
    /// How long it took.
    pub seconds: Seconds,
}

/// A cluster with fitted factors, and how well they fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// The cluster with its new factors and link latency.
    pub cluster: ClusterSpec,
    /// How far it is from each measurement.
    pub residuals: Vec<Residual>,
}

/// How far a fit is from one measurement, relative to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Residual {
    /// What was measured.
    pub name: &'static str,
    /// What the fit says that it takes.
    pub fitted: Seconds,
    /// The error of the fit.
    pub error: f64,
    /// The error of a fit to the other measurements: what to expect of operators that were not measured. `None` where the
    /// others are too few.
    pub left_out: Option<f64>,
}

/// Mean errors of the measurements of one name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KindError {
    /// What was measured.
    pub name: &'static str,
    /// How often.
    pub measurements: usize,
    /// Mean error of the fit.
    pub error: f64,
    /// Mean error of fits to the other measurements.
    pub leave_one_out: f64,
}

impl Calibration {
    /// Mean relative error over all measurements.
    pub fn error(&self) -> f64 {
        mean(self.residuals.iter().map(|r| r.error))
    }

    /// Mean relative error of each measurement under factors that are fitted to the others.
    pub fn leave_one_out(&self) -> f64 {
        mean(self.residuals.iter().filter_map(|r| r.left_out))
    }

    /// Errors by what was measured, in the order of the measurements.
    pub fn kinds(&self) -> Vec<KindError> {
        let mut names: Vec<&'static str> = Vec::new();
        for residual in &self.residuals {
            if !names.contains(&residual.name) {
                names.push(residual.name);
            }
        }
        let of = |name| {
            let residuals = self.residuals.iter().filter(|r| r.name == name).copied().collect();
            let part = Self { cluster: self.cluster.clone(), residuals };
            let (error, leave_one_out) = (part.error(), part.leave_one_out());
            KindError { name, measurements: part.residuals.len(), error, leave_one_out }
        };
        names.into_iter().map(of).collect()
    }
}

impl Measurement {
    /// A measured operator as the emulator sees it.
    pub fn of(time: &OperatorTime, element_bytes: u32) -> Self {
        Self { operator: Operator::of(&time.shape, element_bytes), seconds: time.seconds }
    }
}

/// Measurements to which nothing can be fitted.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FitError {
    /// There are too few of a kind.
    #[error(
        "there are {found} measurements of kind {kind:?} with different sizes, but fitting it takes at least {needed}; \
         measure more sizes"
    )]
    TooFew {
        /// The kind.
        kind: OperatorKind,
        /// Different sizes that were found.
        found: usize,
        /// Different sizes that are needed.
        needed: usize,
    },
    /// A time is not one.
    #[error(
        "measurement {index} of {name:?} took {seconds} s, but must be finite and above 0; measure it again"
    )]
    Time {
        /// Which measurement.
        index: usize,
        /// Its operator.
        name: &'static str,
        /// Its time.
        seconds: f64,
    },
    /// A profile has nothing to fit to.
    #[error("the profile has no layer of model {model:?} with times above 0; measure this model")]
    Empty {
        /// The model.
        model: String,
    },
    /// Larger operators took no more time.
    #[error(
        "the times of kind {kind:?} do not grow with its size; measure larger sizes on an idle device"
    )]
    NoGrowth {
        /// The kind.
        kind: OperatorKind,
    },
}

/// The cluster with the fastest product and the fastest memory-bound operator of `measurements` as the peaks of its device,
/// for devices that have no data sheet.
pub fn with_measured_peaks(cluster: &ClusterSpec, measurements: &[Measurement]) -> ClusterSpec {
    let fastest = |kind, amount: fn(&Operator) -> f64, unknown: f64| {
        let of_kind = measurements.iter().filter(|m| m.operator.kind == kind);
        let rates = of_kind.map(|m| amount(&m.operator) / m.seconds.0).filter(|r| r.is_finite());
        let fastest = rates.fold(0.0, f64::max);
        if fastest > 0.0 { fastest } else { unknown }
    };
    let mut cluster = cluster.clone();
    let device = &mut cluster.device;
    device.flops_per_s = fastest(OperatorKind::Matmul, |op| op.flops.0, device.flops_per_s);
    device.memory_bytes_per_s =
        fastest(OperatorKind::Elementwise, |op| op.memory.0 as f64, device.memory_bytes_per_s);
    cluster
}

/// Fits the factors of `cluster` to `measurements`. Factors of kinds that were not measured stay as they are.
///
/// # Errors
/// [`FitError`] where a kind was measured at too few sizes, or a time is not positive or does not grow.
pub fn fit(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    measurements: &[Measurement],
) -> Result<Calibration, FitError> {
    for (index, m) in measurements.iter().enumerate() {
        if !(m.seconds.0.is_finite() && m.seconds.0 > 0.0) {
            let (name, seconds) = (m.operator.name, m.seconds.0);
            return Err(FitError::Time { index, name, seconds });
        }
    }
    let fitted = factors(cluster, measurements)?;
    let machine = Machine::new(model, &fitted);
    let residual = |i: usize| {
        let m = &measurements[i];
        let others = [&measurements[..i], &measurements[i + 1..]].concat();
        // A kind with as few sizes as its line needs has no error to leave out.
        let others = factors(cluster, &others).ok();
        let left_out = others.map(|cluster| relative_error(&Machine::new(model, &cluster), m));
        let (name, fitted) = (m.operator.name, machine.latency(&m.operator));
        Residual { name, fitted, error: relative_error(&machine, m), left_out }
    };
    let residuals = (0..measurements.len()).map(residual).collect();
    Ok(Calibration { cluster: fitted, residuals })
}

fn relative_error(machine: &Machine, m: &Measurement) -> f64 {
    (machine.latency(&m.operator) / m.seconds - 1.0).abs()
}

fn mean(errors: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = errors.fold((0.0, 0u32), |(sum, n), e| (sum + e, n + 1));
    if n > 0 { sum / f64::from(n) } else { 0.0 }
}

/// The cluster with fitted factors: first what the other kinds need.
fn factors(cluster: &ClusterSpec, measurements: &[Measurement]) -> Result<ClusterSpec, FitError> {
    let mut fitted = cluster.clone();
    let (device, links) = (&cluster.device, &cluster.links);
    let of = |kind| measurements.iter().filter(move |m| m.operator.kind == kind);
    let moved = |m: &Measurement| m.operator.memory.0 as f64;
    let elementwise = points(of(OperatorKind::Elementwise), moved);
    if !elementwise.is_empty() {
        let curve = Curve::fit(&elementwise, OperatorKind::Elementwise)?;
        let factors = &mut fitted.factors;
        factors.launch_s = curve.near.fixed;
        factors.cached = curve.near.slope * device.memory_bytes_per_s;
        factors.memory = curve.beyond * device.memory_bytes_per_s;
        factors.cache_bytes = curve.bend as u64;
    }
    let launch = fitted.factors.launch_s;
    let memory_s = memory_seconds(&fitted);
    let norms = points(of(OperatorKind::Norm), |m| memory_s(moved(m))).after(launch);
    if of(OperatorKind::Norm).next().is_some() {
        fitted.factors.norm = Line::through_origin(&norms, OperatorKind::Norm)?;
    }
    let arithmetic =
        of(OperatorKind::Activation).filter(|m| m.seconds.0 > launch + 1.25 * memory_s(moved(m)));
    let activations = points(arithmetic, moved).after(launch);
    if !activations.is_empty() {
        let slope = Line::through_origin(&activations, OperatorKind::Activation)?;
        fitted.factors.activation = slope * device.memory_bytes_per_s;
    }
    // Where memory is the limit, the time says nothing about the arithmetic.
    let computes = |m: &&Measurement| m.seconds.0 > launch + 1.25 * memory_s(moved(m));
    let products =
        points(of(OperatorKind::Matmul).filter(computes), |m| m.operator.flops.0).after(launch);
    if of(OperatorKind::Matmul).next().is_some() {
        let line = Line::fit(&products, OperatorKind::Matmul)?;
        fitted.factors.matmul = line.slope * device.flops_per_s;
        fitted.factors.saturation_flop = line.fixed / line.slope;
    }
    let saturation = fitted.factors.saturation_flop;
    let attention =
        points(of(OperatorKind::Attention).filter(computes), |m| m.operator.flops.0 + saturation)
            .after(launch);
    if of(OperatorKind::Attention).next().is_some() {
        let slope = Line::through_origin(&attention, OperatorKind::Attention)?;
        fitted.factors.attention = slope * device.flops_per_s;
    }
    let sent = points(of(OperatorKind::Collective), |m| m.operator.network.0 as f64).after(launch);
    if !sent.is_empty() {
        let line = Line::fit(&sent, OperatorKind::Collective)?;
        fitted.links.latency_s = line.fixed;
        fitted.factors.network = line.slope * links.intra_node_bytes_per_s;
    }
    // The factor of the network is that of messages, so copies to the host get a bandwidth of their own.
    let copied = points(of(OperatorKind::HostCopy), |m| m.operator.network.0 as f64)
        .after(launch + fitted.links.latency_s);
    if !copied.is_empty() {
        let slope = Line::through_origin(&copied, OperatorKind::HostCopy)?;
        fitted.links.host_bytes_per_s = fitted.factors.network / slope;
    }
    Ok(fitted)
}

/// Seconds in which a device moves bytes.
fn memory_seconds(cluster: &ClusterSpec) -> impl Fn(f64) -> f64 + use<> {
    let (factors, bandwidth) = (cluster.factors.clone(), cluster.device.memory_bytes_per_s);
    move |bytes: f64| {
        let near = bytes.min(factors.cache_bytes as f64);
        (factors.cached * near + factors.memory * (bytes - near)) / bandwidth
    }
}

/// Sizes and times.
struct Points(Vec<(f64, f64)>);

fn points<'a>(
    measurements: impl Iterator<Item = &'a Measurement>,
    size: impl Fn(&Measurement) -> f64,
) -> Points {
    Points(measurements.map(|m| (size(m), m.seconds.0)).collect())
}

impl Points {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The times less a fixed cost; those that it uses up are left out.
    fn after(self, fixed: f64) -> Self {
        Self(self.0.into_iter().map(|(x, t)| (x, t - fixed)).filter(|p| p.1 > 0.0).collect())
    }

    fn sizes(&self) -> usize {
        let mut sizes: Vec<f64> = self.0.iter().map(|p| p.0).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        sizes.len()
    }
}

/// `time = fixed + slope * size`, neither negative.
struct Line {
    fixed: f64,
    slope: f64,
}

impl Line {
    fn fit(points: &Points, kind: OperatorKind) -> Result<Self, FitError> {
        let found = points.sizes();
        if found < 2 {
            return Err(FitError::TooFew { kind, found, needed: 2 });
        }
        // Least squares of (fixed + slope x) / t - 1.
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

    fn through_origin(points: &Points, kind: OperatorKind) -> Result<f64, FitError> {
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

/// A line that bends up once: caches hold small operators.
struct Curve {
    near: Line,
    bend: f64,
    /// Slope beyond the bend.
    beyond: f64,
}

impl Curve {
    /// Of all bends at a measured size, the one with the least squares; none where a line is as good.
    fn fit(points: &Points, kind: OperatorKind) -> Result<Self, FitError> {
        let line = Line::fit(points, kind)?;
        let straight = Self { beyond: line.slope, near: line, bend: 0.0 };
        let mut best = (straight.squares(points), straight);
        for &(bend, _) in &points.0 {
            let (near, far): (Vec<_>, Vec<_>) = points.0.iter().partition(|p| p.0 <= bend);
            let (near, far) = (Points(near), Points(far));
            if near.sizes().min(far.sizes()) < 3 {
                continue;
            }
            let Some(curve) = Self::bent(&near, &far, bend, kind) else { continue };
            let squares = curve.squares(points);
            if squares < best.0 {
                best = (squares, curve);
            }
        }
        Ok(best.1)
    }

    fn bent(near: &Points, far: &Points, bend: f64, kind: OperatorKind) -> Option<Self> {
        let near = Line::fit(near, kind).ok()?;
        // Least squares of (start + beyond (x - bend)) / t - 1.
        let start = near.fixed + near.slope * bend;
        let (above, weights) = far.0.iter().fold((0.0, 0.0), |(above, weights), &(x, t)| {
            let v = (x - bend) / t;
            (above + v * (1.0 - start / t), weights + v * v)
        });
        let beyond = above / weights;
        (beyond > near.slope).then_some(Self { near, bend, beyond })
    }

    fn squares(&self, points: &Points) -> f64 {
        let at = |x: f64| {
            let beyond = self.beyond * (x - self.bend).max(0.0);
            self.near.fixed + self.near.slope * x.min(self.bend) + beyond
        };
        points.0.iter().map(|&(x, t)| (at(x) / t - 1.0).powi(2)).sum()
    }
}

#[cfg(test)]
mod tests;

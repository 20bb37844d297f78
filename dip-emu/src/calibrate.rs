//! Fits the factors of a cluster to measured operators (paper section 3: micro-benchmarks of products and collectives).
//!
//! With the data sheet given, the latency of each kind of operator is a line: a fixed cost and a slope. Elementwise
//! operators give `launch_s` and `memory`, products `saturation_flop` and `matmul`, attention its slope, transfers
//! `latency_s` and `network`. Lines minimise the relative error, so that small operators count as much as large ones.

mod profile;

use dip_core::{ClusterSpec, ModelSpec, Seconds};
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
    /// Mean relative error over the measurements.
    pub error: f64,
    /// Mean relative error of each measurement under factors that are fitted to the others: the error to expect of
    /// operators that were not measured.
    pub leave_one_out: f64,
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
    let error = mean(measurements.iter().map(|m| relative_error(&machine, m)));
    let mut left_out = Vec::new();
    for i in 0..measurements.len() {
        let others = [&measurements[..i], &measurements[i + 1..]].concat();
        // A kind with as few sizes as its line needs has no error to leave out.
        let Ok(cluster) = factors(cluster, &others) else { continue };
        left_out.push(relative_error(&Machine::new(model, &cluster), &measurements[i]));
    }
    Ok(Calibration { cluster: fitted, error, leave_one_out: mean(left_out.into_iter()) })
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
    let elementwise = points(of(OperatorKind::Elementwise), |m| m.operator.memory.0 as f64);
    if !elementwise.is_empty() {
        let line = Line::fit(&elementwise, OperatorKind::Elementwise)?;
        fitted.factors.launch_s = line.fixed;
        fitted.factors.memory = line.slope * device.memory_bytes_per_s;
    }
    let launch = fitted.factors.launch_s;
    // Where memory is the limit, the time says nothing about the arithmetic.
    let memory = fitted.factors.memory / device.memory_bytes_per_s;
    let computes =
        |m: &&Measurement| m.seconds.0 > launch + 1.25 * memory * m.operator.memory.0 as f64;
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
    for (kind, bytes_per_s) in [
        (OperatorKind::Collective, links.intra_node_bytes_per_s),
        (OperatorKind::HostCopy, links.host_bytes_per_s),
    ] {
        let sent = points(of(kind), |m| m.operator.network.0 as f64).after(launch);
        if !sent.is_empty() {
            let line = Line::fit(&sent, kind)?;
            fitted.links.latency_s = line.fixed;
            fitted.factors.network = line.slope * bytes_per_s;
            break;
        }
    }
    Ok(fitted)
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

#[cfg(test)]
mod tests;

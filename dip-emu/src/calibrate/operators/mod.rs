//! Fits factors to single operators.
//!
//! Peaks come from the data sheet. The times of each kind are fitted by a line: a fixed time and a slope.
//!
//! | kind | gives |
//! |---|---|
//! | elementwise | `launch_s`, `memory`; with a bend also `cached` and `cache_bytes` |
//! | norm, activation, attention | their slope |
//! | product | `matmul`, `saturation_flop` |
//! | message | `latency_s`, `network` |
//! | host copy | `host_bytes_per_s` |

use dip_core::{ClusterSpec, OperatorTime, Seconds};

use super::calibration::{Calibration, FitError, FittedTime};
use super::curve::{BentLine, FittedLine, Points};
use crate::operators::{Machine, Operator, OperatorKind};

/// A measured operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// The operator.
    pub operator: Operator,
    /// Its measured time.
    pub seconds: Seconds,
}

impl Measurement {
    /// A measured operator whose values are `element_bytes` wide.
    pub fn of(time: &OperatorTime, element_bytes: u32) -> Self {
        Self { operator: Operator::of(&time.shape, element_bytes), seconds: time.seconds }
    }
}

/// Returns `cluster` with new peaks for its device: the fastest product and the fastest elementwise operator of
/// `measurements`. Use it for devices without a data sheet.
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

/// Fits the factors of `cluster` to `measurements` on single devices. Kinds without measurements keep their factors.
///
/// # Errors
/// [`FitError`] if a kind was measured at too few sizes, or if a time is not positive or does not grow.
pub fn fit(cluster: &ClusterSpec, measurements: &[Measurement]) -> Result<Calibration, FitError> {
    for (index, m) in measurements.iter().enumerate() {
        if !(m.seconds.0.is_finite() && m.seconds.0 > 0.0) {
            let (name, seconds) = (m.operator.name, m.seconds.0);
            return Err(FitError::Time { index, name, seconds });
        }
    }
    let cluster_of = |measurements: &[Measurement]| FactorFit::run(cluster, measurements);
    let fitted = cluster_of(measurements)?;
    let machine = Machine::new(&fitted, 1);
    let time = |i: usize| {
        let m = &measurements[i];
        let others = [&measurements[..i], &measurements[i + 1..]].concat();
        // Fails if this measurement is one of the few that its kind needs.
        let left_out = cluster_of(&others).ok().map(|c| relative_error(&Machine::new(&c, 1), m));
        let seconds = machine.latency(&m.operator);
        FittedTime { name: m.operator.name, seconds, error: relative_error(&machine, m), left_out }
    };
    let times = (0..measurements.len()).map(time).collect();
    Ok(Calibration { cluster: fitted, times })
}

fn relative_error(machine: &Machine, m: &Measurement) -> f64 {
    (machine.latency(&m.operator) / m.seconds - 1.0).abs()
}

/// A fit in progress. Each step uses the factors of the steps before it, so their order matters.
struct FactorFit<'a> {
    sheet: &'a ClusterSpec,
    measurements: &'a [Measurement],
    fitted: ClusterSpec,
}

impl<'a> FactorFit<'a> {
    /// The cluster with fitted factors.
    fn run(
        sheet: &'a ClusterSpec,
        measurements: &'a [Measurement],
    ) -> Result<ClusterSpec, FitError> {
        let mut fit = Self { sheet, measurements, fitted: sheet.clone() };
        fit.memory()?;
        fit.norms()?;
        fit.activations()?;
        fit.products()?;
        fit.attention()?;
        fit.messages()?;
        fit.host_copies()?;
        Ok(fit.fitted)
    }

    fn memory(&mut self) -> Result<(), FitError> {
        let points = points(self.of(OperatorKind::Elementwise), memory_bytes);
        if points.is_empty() {
            return Ok(());
        }
        let curve = BentLine::fit(&points, OperatorKind::Elementwise)?;
        let bandwidth = self.sheet.device.memory_bytes_per_s;
        let factors = &mut self.fitted.factors;
        factors.launch_s = curve.near.fixed;
        factors.cached = curve.near.slope * bandwidth;
        factors.memory = curve.far_slope * bandwidth;
        factors.cache_bytes = curve.bend as u64;
        Ok(())
    }

    fn norms(&mut self) -> Result<(), FitError> {
        let measured = self.of(OperatorKind::Norm);
        if !measured.is_empty() {
            let points = points(measured, |m| self.memory_seconds(m)).minus(self.launch());
            self.fitted.factors.norm =
                FittedLine::slope_through_origin(&points, OperatorKind::Norm)?;
        }
        Ok(())
    }

    fn activations(&mut self) -> Result<(), FitError> {
        let measured = self.bound_by_arithmetic(OperatorKind::Activation);
        let points = points(measured, memory_bytes).minus(self.launch());
        if !points.is_empty() {
            let slope = FittedLine::slope_through_origin(&points, OperatorKind::Activation)?;
            self.fitted.factors.activation = slope * self.sheet.device.memory_bytes_per_s;
        }
        Ok(())
    }

    fn products(&mut self) -> Result<(), FitError> {
        if !self.of(OperatorKind::Matmul).is_empty() {
            let measured = self.bound_by_arithmetic(OperatorKind::Matmul);
            let points = points(measured, |m| m.operator.flops.0).minus(self.launch());
            let line = FittedLine::fit(&points, OperatorKind::Matmul)?;
            self.fitted.factors.matmul = line.slope * self.sheet.device.flops_per_s;
            self.fitted.factors.saturation_flop = line.fixed / line.slope;
        }
        Ok(())
    }

    fn attention(&mut self) -> Result<(), FitError> {
        if !self.of(OperatorKind::Attention).is_empty() {
            let saturation = self.fitted.factors.saturation_flop;
            let measured = self.bound_by_arithmetic(OperatorKind::Attention);
            let points = points(measured, |m| m.operator.flops.0 + saturation).minus(self.launch());
            let slope = FittedLine::slope_through_origin(&points, OperatorKind::Attention)?;
            self.fitted.factors.attention = slope * self.sheet.device.flops_per_s;
        }
        Ok(())
    }

    fn messages(&mut self) -> Result<(), FitError> {
        let measured = self.of(OperatorKind::Collective);
        let points = points(measured, sent_bytes).minus(self.launch());
        if !points.is_empty() {
            let line = FittedLine::fit(&points, OperatorKind::Collective)?;
            self.fitted.links.latency_s = line.fixed;
            self.fitted.factors.network = line.slope * self.sheet.links.intra_node_bytes_per_s;
        }
        Ok(())
    }

    /// Host copies share the network factor, which messages have decided. So the fit adjusts the host bandwidth.
    fn host_copies(&mut self) -> Result<(), FitError> {
        let measured = self.of(OperatorKind::HostCopy);
        let fixed = self.launch() + self.fitted.links.latency_s;
        let points = points(measured, sent_bytes).minus(fixed);
        if !points.is_empty() {
            let slope = FittedLine::slope_through_origin(&points, OperatorKind::HostCopy)?;
            self.fitted.links.host_bytes_per_s = self.fitted.factors.network / slope;
        }
        Ok(())
    }

    fn of(&self, kind: OperatorKind) -> Vec<&'a Measurement> {
        self.measurements.iter().filter(|m| m.operator.kind == kind).collect()
    }

    /// The measurements of a kind that took clearly longer than their memory traffic. The others say nothing about the
    /// arithmetic.
    fn bound_by_arithmetic(&self, kind: OperatorKind) -> Vec<&'a Measurement> {
        let mut measured = self.of(kind);
        measured.retain(|m| m.seconds.0 > self.launch() + 1.25 * self.memory_seconds(m));
        measured
    }

    fn launch(&self) -> f64 {
        self.fitted.factors.launch_s
    }

    /// The time that the memory traffic of an operator takes.
    fn memory_seconds(&self, m: &Measurement) -> f64 {
        let (factors, bytes) = (&self.fitted.factors, memory_bytes(m));
        let cached = bytes.min(factors.cache_bytes as f64);
        let moved = factors.cached * cached + factors.memory * (bytes - cached);
        moved / self.sheet.device.memory_bytes_per_s
    }
}

fn memory_bytes(m: &Measurement) -> f64 {
    m.operator.memory.0 as f64
}

fn sent_bytes(m: &Measurement) -> f64 {
    m.operator.network.0 as f64
}

fn points(measured: Vec<&Measurement>, size: impl Fn(&Measurement) -> f64) -> Points {
    Points::new(measured.into_iter().map(|m| (size(m), m.seconds.0)))
}

#[cfg(test)]
mod tests;

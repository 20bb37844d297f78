//! The step of a plan on the terminal: its parts, tokens per second and utilisation.

use dip::plan::{Seconds, StepFigures};

/// Two lines: the parts of a step whose pipeline takes `pipeline`, and what it trains.
pub fn lines(step: &StepFigures, pipeline: Seconds, cluster_devices: Option<u64>) -> String {
    let total = step.seconds(pipeline);
    let parallel = step.parallel;
    let of = cluster_devices.map_or_else(String::new, |devices| format!(" of {devices}"));
    let per_device = step.tokens_per_s(total);
    let exchange = if parallel.data > 1 {
        format!(
            ", exchange between replicas {} (gradients {}, weights {})",
            step.exchange(),
            step.reduction_s,
            step.gather_s
        )
    } else {
        String::new()
    };
    format!(
        "step {total}: pipeline {pipeline}{exchange}, optimiser {}\n\
         {:.0} tokens/s, {per_device:.0} a device; MFU {:.1} %; uses {}{of} devices: data {}, tensor {}, pipeline {}\n",
        step.update_s,
        per_device * step.devices() as f64,
        100.0 * step.utilisation(total),
        step.devices(),
        parallel.data,
        parallel.tensor,
        parallel.pipeline
    )
}

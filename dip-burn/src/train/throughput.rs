//! Model FLOPs utilisation, and memory of the process.

use dip_core::{BatchMeta, Bytes, Flops, Seconds};

/// Computes the utilisation of the devices.
pub struct Throughput {
    /// FLOPs of the model on a batch, without recomputation.
    pub model_flops: Box<dyn Fn(&BatchMeta) -> Flops + Send>,
    /// Peak of all devices of the run together, in FLOP/s.
    pub peak_flops_per_s: f64,
}

impl Throughput {
    /// Model FLOPs utilisation: the FLOPs of the model per second as a share of the peak. `None` without time or peak.
    pub fn utilisation(&self, batch: &BatchMeta, elapsed: Seconds) -> Option<f64> {
        let possible = self.peak_flops_per_s * elapsed.0;
        (possible > 0.0).then(|| (self.model_flops)(batch).0 / possible)
    }
}

/// Resident memory of this process; `None` if the system does not report it.
pub fn resident_bytes() -> Option<Bytes> {
    memory_stats::memory_stats().map(|stats| Bytes(stats.physical_mem as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilisation_is_arithmetic_over_peak_and_time() {
        let throughput =
            Throughput { model_flops: Box::new(|_| Flops(6e9)), peak_flops_per_s: 1e10 };
        let at = |seconds| throughput.utilisation(&BatchMeta::default(), Seconds(seconds));
        assert_eq!(at(2.0), Some(0.3));
        assert_eq!(at(0.0), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn resident_memory_grows_with_written_memory() {
        let before = resident_bytes().unwrap();
        // Much more than the memory that concurrent tests may release meanwhile.
        let filled = std::hint::black_box(vec![1u8; 256 << 20]);
        let after = resident_bytes().unwrap();
        assert!(after.0 > before.0 + (128 << 20), "{before} {after}");
        drop(filled);
    }
}

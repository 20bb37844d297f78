//! A GPU computes the same as the CPU. These tests need Vulkan, such as Mesa's lavapipe, or CUDA:
//!
//! ```text
//! cargo test --release -p dip-burn --features wgpu -- --ignored gpu::wgpu
//! cargo test --release -p dip-burn --features cuda -- --ignored gpu::cuda
//! ```

use burn::tensor::backend::Backend;
use dip_burn::measure::kernels::{KernelSizes, kernel_times};
use dip_burn::model::Precision;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::gradients::{case, case_of_clips, case_of_wan};

const STRATEGIES: [&str; 4] = ["keep", "selective", "full", "offload"];

/// Random plans of every model, with parts without pictures. `digits` is the largest difference.
fn random_plans_give_the_gradients_of_the_cpu<B: Backend>(device: &B::Device, digits: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (round, ranks) in [1, 2, 3, 2, 2, 3].into_iter().enumerate() {
        let devices = || vec![device.clone(); ranks];
        let images: [&[&[u32]]; 3] = [&[&[2, 1], &[0], &[1, 0, 2]], &[&[0], &[0, 0]], &[&[1]]];
        let pictures = case(&mut rng, images[round % 3], false);
        pictures.holds_on::<B>(&mut rng, devices(), &STRATEGIES, digits);
        for clips in [case_of_clips, case_of_wan] {
            let clips = clips(&mut rng, ranks == 3);
            clips.holds_on::<B>(&mut rng, devices(), &STRATEGIES, digits);
        }
    }
}

/// Heads of 16 values, for which GPUs compute short sequences all at once.
fn wide_heads_give_the_gradients_of_the_cpu<B: Backend>(device: &B::Device, digits: f64) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let pictures = case(&mut rng, &[&[2, 1], &[1, 0, 2]], false);
    let clips = case_of_clips(&mut rng, false);
    for mut case in [pictures, clips] {
        for module in &mut case.model.modules {
            module.hidden = 16 * module.heads;
        }
        case.holds_on::<B>(&mut rng, vec![device.clone()], &STRATEGIES, digits);
    }
}

/// Kernels and their twins in Burn's operations, at sizes that fill cubes and at sizes that do not.
fn kernels_equal_their_twins<B: Backend>(device: &B::Device) {
    for (precision, most) in [(Precision::F32, 2e-5), (Precision::Bf16, 2e-2)] {
        if precision != Precision::F32 && !B::supports_dtype(device, precision.dtype()) {
            continue;
        }
        for (rows, width, vocabulary) in [(64, 64, 33), (192, 320, 1000), (1088, 128, 4096)] {
            let sizes = KernelSizes { rows, width, vocabulary, precision };
            for time in kernel_times::<B>(device, sizes).unwrap() {
                assert!(time.difference < most, "{time:?}");
            }
        }
    }
}

#[cfg(feature = "wgpu")]
mod wgpu {
    use burn::backend::wgpu::WgpuDevice;
    use dip_burn::backend::Wgpu;

    use super::*;

    /// A GPU sums in other orders than the CPU.
    const DIGITS: f64 = 1e-4;

    #[test]
    #[ignore = "needs Vulkan"]
    fn random_plans_on_one_gpu_give_the_gradients_of_the_cpu() {
        random_plans_give_the_gradients_of_the_cpu::<Wgpu>(&WgpuDevice::DefaultDevice, DIGITS);
    }

    #[test]
    #[ignore = "needs Vulkan"]
    fn wide_heads_on_one_gpu_give_the_gradients_of_the_cpu() {
        wide_heads_give_the_gradients_of_the_cpu::<Wgpu>(&WgpuDevice::DefaultDevice, DIGITS);
    }

    #[test]
    #[ignore = "needs Vulkan"]
    fn kernels_of_a_gpu_equal_their_twins() {
        kernels_equal_their_twins::<Wgpu>(&WgpuDevice::DefaultDevice);
    }

    #[test]
    #[ignore = "needs Vulkan on a GPU and on lavapipe, or on lavapipe alone"]
    fn ranks_on_two_devices_give_the_gradients_of_the_cpu() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..3 {
            let devices = || vec![WgpuDevice::DefaultDevice, WgpuDevice::Cpu];
            let pictures = case(&mut rng, &[&[2, 1], &[0], &[1, 0, 2]], false);
            pictures.holds_on::<Wgpu>(&mut rng, devices(), &STRATEGIES, DIGITS);
            let clips = case_of_clips(&mut rng, false);
            clips.holds_on::<Wgpu>(&mut rng, devices(), &STRATEGIES, DIGITS);
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use dip_burn::backend::Cuda;

    use super::*;

    /// CUDA multiplies f32 in TF32, with 10 bits after the point.
    const DIGITS: f64 = 2e-2;

    #[test]
    #[ignore = "needs CUDA"]
    fn random_plans_on_one_gpu_give_the_gradients_of_the_cpu() {
        random_plans_give_the_gradients_of_the_cpu::<Cuda>(&Default::default(), DIGITS);
    }

    #[test]
    #[ignore = "needs CUDA"]
    fn wide_heads_on_one_gpu_give_the_gradients_of_the_cpu() {
        wide_heads_give_the_gradients_of_the_cpu::<Cuda>(&Default::default(), DIGITS);
    }

    #[test]
    #[ignore = "needs CUDA"]
    fn kernels_of_a_gpu_equal_their_twins() {
        kernels_equal_their_twins::<Cuda>(&Default::default());
    }
}

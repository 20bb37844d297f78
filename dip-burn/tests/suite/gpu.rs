//! These tests need Vulkan. They have run on Mesa's lavapipe:
//!
//! ```text
//! cargo test --release -p dip-burn --features wgpu,nodes -- --ignored gpu
//! ```

use burn::backend::wgpu::WgpuDevice;
use dip_burn::backend::Wgpu;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::gradients::{case, case_of_clips};

const STRATEGIES: [&str; 4] = ["keep", "selective", "full", "offload"];
/// A GPU sums in other orders than the CPU.
const DIGITS: f64 = 1e-4;

#[test]
#[ignore = "needs Vulkan"]
fn random_plans_on_one_gpu_give_the_gradients_of_the_cpu() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for ranks in [1, 2, 3, 2, 2, 3] {
        let devices = || vec![WgpuDevice::DefaultDevice; ranks];
        let pictures = case(&mut rng, &[&[2, 1], &[0], &[1, 0, 2]], false);
        pictures.holds_on::<Wgpu>(&mut rng, devices(), &STRATEGIES, DIGITS);
        let clips = case_of_clips(&mut rng, ranks == 3);
        clips.holds_on::<Wgpu>(&mut rng, devices(), &STRATEGIES, DIGITS);
    }
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

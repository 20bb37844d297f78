//! Selects the backend for the device of a run.

use dip_burn::Backend;
use dip_burn::backend::{self, DeviceError};
use dip_burn::train::Device;

/// Work that is generic over the backend.
pub trait OnBackend {
    /// The result of the work.
    type Output;

    /// Does the work on these devices, of which there is at least one.
    fn call<B: Backend>(self, devices: Vec<B::Device>) -> Self::Output;
}

/// Does `work` on `count` devices of a kind. If there are fewer devices than ranks, ranks share devices.
///
/// # Errors
/// [`DeviceError`] if this build has no such backend, or the machine no such device.
pub fn on_device<W: OnBackend>(
    device: Device,
    count: u32,
    work: W,
) -> Result<W::Output, DeviceError> {
    match device {
        Device::Cpu => Ok(work.call::<backend::Cpu>(backend::cpu_devices(count))),
        #[cfg(feature = "cuda")]
        Device::Cuda => Ok(work.call::<backend::Cuda>(backend::cuda_devices(count)?)),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => Err(DeviceError::NotBuilt { feature: "cuda" }),
        #[cfg(feature = "wgpu")]
        Device::Wgpu => Ok(work.call::<backend::Wgpu>(backend::wgpu_devices(count)?)),
        #[cfg(not(feature = "wgpu"))]
        Device::Wgpu => Err(DeviceError::NotBuilt { feature: "wgpu" }),
        #[cfg(feature = "rocm")]
        Device::Rocm => Ok(work.call::<backend::Rocm>(backend::rocm_devices(count)?)),
        #[cfg(not(feature = "rocm"))]
        Device::Rocm => Err(DeviceError::NotBuilt { feature: "rocm" }),
    }
}

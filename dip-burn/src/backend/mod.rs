//! The backends that a run can choose, and their devices.

#[cfg(any(feature = "cuda", feature = "rocm"))]
mod compiled;

use thiserror::Error;

#[cfg(any(feature = "cuda", feature = "rocm"))]
pub use compiled::{keep_kernels_in, kernel_folder};

/// Training on CPU: Flex, with one pool of compute threads per rank.
pub type Cpu = burn::backend::Flex;

/// Training on CUDA devices; kernels are compiled at run time.
#[cfg(feature = "cuda")]
pub type Cuda = burn::backend::Cuda;

/// Training on any GPU with Vulkan, Metal or DirectX.
#[cfg(feature = "wgpu")]
pub type Wgpu = burn::backend::Wgpu;

/// Training on AMD devices; kernels are compiled at run time.
#[cfg(feature = "rocm")]
pub type Rocm = burn::backend::Rocm;

/// A device that is not available.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// CUDA has no driver or no device.
    #[error("no CUDA device: {what}; install the NVIDIA driver, or train with device = \"cpu\"")]
    NoCuda {
        /// The missing part.
        what: String,
    },
    /// Another backend has no driver or no device.
    #[error(
        "no {feature} device can be used: {what}; install its driver, or train with device = \"cpu\""
    )]
    NoDevice {
        /// The feature of the backend.
        feature: &'static str,
        /// The message of the backend.
        what: String,
    },
    /// The program was built without the backend.
    #[error(
        "this build has no {feature}; build with `--features {feature}`, or train with device = \"cpu\""
    )]
    NotBuilt {
        /// The feature of the backend.
        feature: &'static str,
    },
}

/// One CPU device per rank.
pub fn cpu_devices(ranks: u32) -> Vec<burn::backend::flex::FlexDevice> {
    (0..ranks).map(|_| burn::backend::flex::FlexDevice).collect()
}

/// One CUDA device per rank. With more ranks than devices, ranks share them round-robin.
///
/// # Errors
/// [`DeviceError::NoCuda`] if there is no driver or no device.
#[cfg(feature = "cuda")]
pub fn cuda_devices(ranks: u32) -> Result<Vec<burn::backend::cuda::CudaDevice>, DeviceError> {
    use burn::tensor::backend::Backend;
    compiled::keep_kernels();
    // Without the driver's library the backend panics at its first operation, so look for the driver first.
    let control = ["/dev/nvidiactl", "/dev/dxg"];
    let library = std::path::Path::new(r"C:\Windows\System32\nvcuda.dll");
    if !control.iter().any(|p| std::path::Path::new(p).exists()) && !library.exists() {
        return Err(DeviceError::NoCuda { what: "the driver is not installed".into() });
    }
    match quietly(|| Cuda::device_count(0)) {
        Ok(0) => Err(DeviceError::NoCuda { what: "the driver finds no device".into() }),
        Ok(n) => Ok((0..ranks as usize)
            .map(|rank| burn::backend::cuda::CudaDevice { index: rank % n })
            .collect()),
        Err(message) => {
            Err(DeviceError::NoCuda { what: format!("its library cannot be used ({message})") })
        }
    }
}

/// The default device, shared by all ranks.
///
/// # Errors
/// [`DeviceError::NoDevice`] if the smallest operation fails.
#[cfg(feature = "wgpu")]
pub fn wgpu_devices(ranks: u32) -> Result<Vec<burn::backend::wgpu::WgpuDevice>, DeviceError> {
    shared::<Wgpu>(ranks, "wgpu")
}

/// The default device, shared by all ranks.
///
/// # Errors
/// [`DeviceError::NoDevice`] if the smallest operation fails.
#[cfg(feature = "rocm")]
pub fn rocm_devices(ranks: u32) -> Result<Vec<burn::backend::rocm::RocmDevice>, DeviceError> {
    compiled::keep_kernels();
    shared::<Rocm>(ranks, "rocm")
}

/// The default device for every rank, after one operation on it: backends panic if there is no driver.
#[cfg(any(feature = "wgpu", feature = "rocm"))]
fn shared<B: burn::tensor::backend::Backend>(
    ranks: u32,
    feature: &'static str,
) -> Result<Vec<B::Device>, DeviceError> {
    let device = B::Device::default();
    let ones = || burn::tensor::Tensor::<B, 1>::ones([2], &device).sum().try_into_scalar();
    match quietly(ones) {
        Ok(Ok(_)) => Ok(vec![device.clone(); ranks as usize]),
        Ok(Err(error)) => Err(DeviceError::NoDevice { feature, what: error.to_string() }),
        Err(what) => Err(DeviceError::NoDevice { feature, what }),
    }
}

/// Runs code that may panic, here or on threads of the backend. Returns the first line of the first panic and prints none.
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "rocm", test))]
fn quietly<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
    use std::sync::{Arc, Mutex, PoisonError};
    let message = Arc::new(Mutex::new(None));
    let first = message.clone();
    let usual = take_hook();
    set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or("a panic");
        let line = text.lines().next().unwrap_or_default().to_owned();
        first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(line);
    }));
    let result = catch_unwind(AssertUnwindSafe(run));
    set_hook(usual);
    let message = message.lock().unwrap_or_else(PoisonError::into_inner).take();
    result.map_err(|_| message.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_panics_on_its_own_thread_is_quoted() {
        let probe = || {
            let own = std::thread::spawn(|| panic!("no {}\nand a long dump", "adapter"));
            own.join().expect("it has not answered")
        };
        assert_eq!(quietly::<()>(probe), Err("no adapter".into()));
        assert_eq!(quietly(|| 1), Ok(1));
    }
}

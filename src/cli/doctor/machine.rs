//! Processor, memory and disk of this machine.

use std::path::Path;

use dip::plan::Bytes;

use super::Check;

/// What can be said of the machine without a run.
pub fn checks() -> Vec<Check> {
    let mut checks = vec![processor()];
    checks.extend(memory());
    checks.extend(disk(Path::new(".")));
    checks
}

/// The cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn processor() -> Check {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").map_or_else(String::new, |model| format!(" of {model}"));
    let found = format!("{} cores{model}, {}", cores(), vectors());
    match vectors() {
        "no AVX2" => Check::absent("processor", found, "training on the CPU is slow"),
        _ => Check::ok("processor", found),
    }
}

/// The widest vectors that kernels on the CPU use.
fn vectors() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if std::is_x86_feature_detected!("avx512f") {
            "AVX-512"
        } else if std::is_x86_feature_detected!("avx2") {
            "AVX2"
        } else {
            "no AVX2"
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        std::env::consts::ARCH
    }
}

/// Free memory of this machine in bytes, where the system tells.
pub fn free_memory() -> Option<u64> {
    meminfo("MemAvailable:")
}

fn meminfo(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(1024))
}

fn memory() -> Option<Check> {
    let (free, all) = (free_memory()?, meminfo("MemTotal:")?);
    Some(Check::ok("memory", format!("{} free of {}", Bytes(free), Bytes(all))))
}

/// Free bytes of the file system of a folder, or of the nearest folder above it that exists.
#[cfg(unix)]
pub fn free_disk(folder: &Path) -> Option<u64> {
    let absolute = std::path::absolute(folder).ok()?;
    let there = absolute.ancestors().find(|folder| folder.exists())?;
    let found = rustix::fs::statvfs(there).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Free bytes of the file system of a folder; unknown on this system.
#[cfg(not(unix))]
pub fn free_disk(_: &Path) -> Option<u64> {
    None
}

fn disk(folder: &Path) -> Option<Check> {
    Some(Check::ok("disk", format!("{} free here", Bytes(free_disk(folder)?))))
}

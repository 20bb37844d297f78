//! Compiled kernels of CUDA and ROCm on disk. A start finds the kernels of the starts before it; without them the first iterations
//! compile hundreds of kernels, which takes minutes.

use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use burn_cubecl::cubecl::config::cache::CacheConfig;
use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use twox_hash::XxHash3_64;

use crate::kernels::SOURCES;

static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();

/// Keeps compiled kernels in `folder`, in place of the cache folder of the user. It has no effect after the first use of a GPU.
pub fn keep_kernels_in(folder: &Path) {
    keep(|| Some(folder.to_owned()));
}

/// The folder in which the compiled kernels of this process are kept; `None` before the first use of CUDA or ROCm, or if there is
/// no such folder.
pub fn kernel_folder() -> Option<PathBuf> {
    FOLDER.get().cloned().flatten()
}

/// Keeps compiled kernels in the cache folder of the user, unless another folder was chosen.
pub(super) fn keep_kernels() {
    keep(|| Some(dirs::cache_dir()?.join("dip").join("kernels")));
}

fn keep(root: impl FnOnce() -> Option<PathBuf>) {
    FOLDER.get_or_init(|| {
        let folder = root()?.join(key(&cards()));
        let own = |cache: &mut Option<CacheConfig>| {
            // A cubecl.toml or burn.toml of the user may name another place.
            cache.get_or_insert_with(|| CacheConfig::File(folder)).root()
        };
        let mut state = CubeClRuntimeConfig::storage().lock();
        match &mut *state {
            Some(config) => config.compilation.cache.as_ref().map(CacheConfig::root),
            None => {
                let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
                let root = own(&mut config.compilation.cache);
                *state = Some(Arc::new(config));
                Some(root)
            }
        }
    });
}

/// The name of the folder for these cards: compiled kernels only run on the cards that they are compiled for. It also depends on the
/// sources of dip's own kernels, because the library under it knows kernels by their names.
fn key(cards: &str) -> String {
    let mut hasher = XxHash3_64::with_seed(0);
    SOURCES.iter().for_each(|source| hasher.write(source.as_bytes()));
    hasher.write(cards.as_bytes());
    format!("{}-{:016x}", env!("CARGO_PKG_VERSION"), hasher.finish())
}

/// The models of the cards of this machine, as the drivers of Linux name them; empty elsewhere.
fn cards() -> String {
    let files = [
        ("/proc/driver/nvidia/gpus", "information", "Model:"),
        ("/sys/class/kfd/kfd/topology/nodes", "properties", "gfx_target_version"),
    ];
    let mut found: Vec<String> = Vec::new();
    for (folder, file, field) in files {
        for card in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(card.path().join(file)).unwrap_or_default();
            found.extend(text.lines().find(|line| line.starts_with(field)).map(str::to_owned));
        }
    }
    found.sort();
    found.dedup();
    found.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_cards_have_another_folder() {
        assert_eq!(key("one"), key("one"));
        assert_ne!(key("one"), key("two"));
    }
}

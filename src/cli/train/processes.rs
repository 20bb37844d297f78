//! The processes that `mpirun` or `srun` has started together.

use std::sync::Arc;

use anyhow::{Result, bail};
use dip::train::runtime::transport::Transport;

/// Variables in which launchers tell a process how many there are.
const SIZES: [&str; 2] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];

/// Number of processes that were started together.
fn count() -> usize {
    let size = |name: &&str| std::env::var(name).ok()?.parse().ok();
    let by_slurm = || {
        let is_launched =
            ["PMIX_RANK", "PMI_RANK", "PMI_FD"].iter().any(|v| std::env::var_os(v).is_some());
        if is_launched { size(&"SLURM_STEP_NUM_TASKS") } else { None }
    };
    SIZES.iter().find_map(size).or_else(by_slurm).unwrap_or(1)
}

/// Joins the processes that were started together; `None` if this one was started alone.
pub fn join() -> Result<Option<Arc<dyn Transport>>> {
    if count() <= 1 {
        return Ok(None);
    }
    connect().map(Some)
}

/// Refuses several processes.
pub fn refuse(why: &str) -> Result<()> {
    if count() > 1 {
        bail!("{} processes were started, but {why}; start it without mpirun", count());
    }
    Ok(())
}

#[cfg(feature = "mpi")]
fn connect() -> Result<Arc<dyn Transport>> {
    Ok(Arc::new(dip::train::runtime::transport::MpiTransport::connect()?))
}

#[cfg(not(feature = "mpi"))]
fn connect() -> Result<Arc<dyn Transport>> {
    bail!(
        "{} processes were started, but this build has no MPI, and each would train the whole run; build with `--features mpi`, \
         or start one process",
        count()
    )
}

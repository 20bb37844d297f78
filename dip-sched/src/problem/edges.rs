//! Edges between tasks as compressed rows.

/// The edges of every task in one direction, each with its seconds of communication.
#[derive(Debug, Clone, Default)]
pub(crate) struct Edges {
    offsets: Vec<u32>,
    items: Vec<(u32, f64)>,
}

impl Edges {
    /// Edges `(from, to, comm_s)` among `n` tasks, grouped by `from`.
    pub(super) fn new(n: usize, edges: impl Iterator<Item = (u32, u32, f64)> + Clone) -> Self {
        let mut offsets = vec![0u32; n + 1];
        for (from, _, _) in edges.clone() {
            offsets[from as usize + 1] += 1;
        }
        for i in 0..n {
            offsets[i + 1] += offsets[i];
        }
        let mut cursor = offsets.clone();
        let mut items = vec![(0, 0.0); offsets[n] as usize];
        for (from, to, comm) in edges {
            let slot = &mut cursor[from as usize];
            items[*slot as usize] = (to, comm);
            *slot += 1;
        }
        Self { offsets, items }
    }

    /// The same edges with other seconds of communication: `comm` gets both ends and the present seconds.
    pub(super) fn with_comm(&self, comm: impl Fn(usize, usize, f64) -> f64) -> Self {
        let mut edges = self.clone();
        for task in 0..self.offsets.len().saturating_sub(1) {
            let row = self.offsets[task] as usize..self.offsets[task + 1] as usize;
            for (other, seconds) in &mut edges.items[row] {
                *seconds = comm(task, *other as usize, *seconds);
            }
        }
        edges
    }

    /// The other ends of a task's edges, with their seconds of communication.
    #[inline]
    pub(crate) fn of_task(&self, task: usize) -> &[(u32, f64)] {
        &self.items[self.offsets[task] as usize..self.offsets[task + 1] as usize]
    }
}

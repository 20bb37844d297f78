//! Degrees of parallelism and microbatches on the command line, and warnings about setups that no machine can run as planned.

use anyhow::{Result, bail};
use clap::Args;
use dip::plan::{ClusterSpec, ModelSpec, Partition};

use super::terminal;

/// The size of a run, in place of the model's.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Sizing {
    /// Pipeline replicas, in place of the model's; each plans a batch of its own
    #[arg(long)]
    pub data: Option<u32>,
    /// Devices that share each layer, in place of the model's
    #[arg(long)]
    pub tensor: Option<u32>,
    /// Pipeline ranks, in place of the model's
    #[arg(long, visible_alias = "ranks")]
    pub pipeline: Option<u32>,
    /// Microbatches of a sampled batch of one replica, in place of the model's
    #[arg(long)]
    pub microbatches: Option<u32>,
}

impl Sizing {
    /// Changes the model, and checks it again.
    pub fn apply(&self, model: &mut ModelSpec) -> Result<()> {
        let parallel = &mut model.parallel;
        parallel.data = self.data.unwrap_or(parallel.data);
        parallel.tensor = self.tensor.unwrap_or(parallel.tensor);
        parallel.pipeline = self.pipeline.unwrap_or(parallel.pipeline);
        model.microbatches = self.microbatches.unwrap_or(model.microbatches);
        model.validate()?;
        if let (Some(tensor), Some(module)) =
            (self.tensor, model.indivisible(model.parallel.tensor))
        {
            bail!(
                "--tensor is {tensor}, but must be a divisor of the {} heads of module {:?}; choose another: the devices of \
                 a layer share its heads",
                module.heads,
                module.name
            );
        }
        Ok(())
    }
}

/// What a cluster cannot do as planned.
pub fn warnings(model: &ModelSpec, cluster: &ClusterSpec) -> Vec<String> {
    let (parallel, mut found) = (model.parallel, Vec::new());
    let (needed, devices) = (parallel.devices(), cluster.devices());
    if needed > devices {
        found.push(format!(
            "{} needs {needed} devices (data {}, tensor {}, pipeline {}), but cluster {} has {devices}; lower a degree or \
             raise `nodes` in a cluster TOML",
            model.name, parallel.data, parallel.tensor, parallel.pipeline, cluster.name
        ));
    }
    if parallel.tensor > cluster.devices_per_node {
        found.push(format!(
            "tensor {} spans nodes of {} devices, so that every layer waits for the links between nodes; choose at most {}",
            parallel.tensor, cluster.devices_per_node, cluster.devices_per_node
        ));
    }
    if let Some(module) = model.indivisible(parallel.tensor) {
        found.push(format!(
            "tensor {} does not divide the {} heads of module {:?}; it is planned as if it did, with heads split among devices",
            parallel.tensor, module.heads, module.name
        ));
    }
    found
}

/// Prints the warnings to standard error.
pub fn warn(model: &ModelSpec, cluster: &ClusterSpec) {
    for warning in warnings(model, cluster) {
        terminal::warn(warning);
    }
}

/// Says which ranks hold no layer: they only wait.
pub fn warn_empty_ranks(partition: &Partition) {
    let chunks = || partition.modules.iter().flat_map(|module| &module.chunks);
    let is_empty = |rank: &u32| chunks().all(|chunk| chunk.rank.index() != *rank as usize);
    let empty: Vec<String> =
        (0..partition.ranks).filter(is_empty).map(|rank| rank.to_string()).collect();
    if !empty.is_empty() {
        let (count, shown) = (empty.len(), empty.iter().take(8).cloned().collect::<Vec<_>>());
        let more = if count > shown.len() { ", .." } else { "" };
        let list = shown.join(", ");
        terminal::warn(format!(
            "{count} of {} ranks hold no layer ({list}{more}) and only wait; take fewer",
            partition.ranks
        ));
    }
}

#[cfg(test)]
mod tests {
    use dip::plan::presets;

    use super::*;

    fn sized(sizing: Sizing) -> Result<ModelSpec> {
        let mut model = presets::model("vlm-m").unwrap();
        sizing.apply(&mut model).map(|()| model)
    }

    #[test]
    fn more_devices_than_the_cluster_has_and_layers_across_nodes_are_named() {
        let h20 = presets::cluster("h20").unwrap();
        assert_eq!(h20.devices(), 16);
        let wide =
            Sizing { data: Some(1000), tensor: Some(8), pipeline: Some(2), microbatches: None };
        let found = warnings(&sized(wide).unwrap(), &h20);
        assert!(found.len() == 1 && found[0].contains("16000 devices"), "{found:?}");
        assert!(found[0].contains("h20 has 16; lower a degree or raise `nodes`"), "{found:?}");
        let mut narrow = h20.clone();
        narrow.devices_per_node = 4;
        let fits = Sizing { data: Some(1), tensor: Some(8), pipeline: Some(1), microbatches: None };
        let found = warnings(&sized(fits).unwrap(), &narrow);
        assert!(found.len() == 1 && found[0].contains("choose at most 4"), "{found:?}");
        assert!(warnings(&sized(fits).unwrap(), &h20).is_empty());
    }

    #[test]
    fn a_preset_whose_heads_cannot_be_shared_warns() {
        let (omni, h800) = (presets::model("omni-l").unwrap(), presets::cluster("h800").unwrap());
        let found = warnings(&omni, &h800);
        assert!(found.len() == 1 && found[0].contains("20 heads of module \"audio\""), "{found:?}");
    }

    #[test]
    fn a_tensor_degree_divides_the_heads() {
        let error = sized(Sizing { tensor: Some(3), ..Sizing::default() }).unwrap_err().to_string();
        let parts = ["--tensor is 3", "a divisor of the 16 heads of module \"vision\""];
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

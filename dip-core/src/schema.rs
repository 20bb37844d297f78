//! JSON Schemas of the files of this crate, for editors and other programs.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, schema_for};

use crate::exec::TraceLine;
use crate::plan::{GraphFile, PlanFile};
use crate::spec::BatchLine;
use crate::{ClusterSpec, ModelSpec, Profile};

/// The schema of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileSchema {
    /// Its name, such as `model`.
    pub name: &'static str,
    /// What the file holds.
    pub holds: &'static str,
    /// The schema.
    pub schema: Schema,
}

/// The schema of what a type is written as.
pub fn of_output<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>()
}

/// The schemas of models, clusters, batches, task graphs, plans, measured iterations and profiles.
pub fn files() -> Vec<FileSchema> {
    let file = |name, holds, schema| FileSchema { name, holds, schema };
    vec![
        file("model", "a model, TOML", schema_for!(ModelSpec)),
        file("cluster", "a cluster, TOML", schema_for!(ClusterSpec)),
        file("batch", "a line of batch metadata, JSON", schema_for!(BatchLine)),
        file("graph", "a task graph, JSON", of_output::<GraphFile<'static>>()),
        file("plan", "a plan, JSON", of_output::<PlanFile<'static>>()),
        file("trace", "the second line of a measured iteration, JSON", schema_for!(TraceLine)),
        file("profile", "the measured costs of a run, JSON", schema_for!(Profile)),
    ]
}

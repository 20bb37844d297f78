//! Numbers of parameters of published models.

use std::path::PathBuf;

use dip_burn::weights;
use dip_core::hf;
use serde::Deserialize;

/// A published model, with what `transformers` counts.
#[derive(Deserialize)]
struct Published {
    name: String,
    parameters: u64,
    /// Of these, the parameters that training does not need.
    unused: u64,
    config: serde_json::Value,
}

#[test]
fn numbers_of_parameters_of_published_models_equal_transformers() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/published"));
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap().map(|f| f.unwrap().path()) {
        let text = std::fs::read_to_string(&file).unwrap();
        let all: Vec<Published> = serde_json::from_str(&text).unwrap();
        for Published { name, parameters, unused, config } in all {
            let model = hf::from_config(&name, &config.to_string())
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(weights::parameters(&model), parameters - unused, "{name}");
            count += 1;
        }
    }
    assert!(count >= 12, "{count} models");
}

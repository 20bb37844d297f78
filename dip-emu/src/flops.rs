//! The model FLOPs of a batch, and the model FLOPs utilisation (MFU).

use dip_core::profile::Part;
use dip_core::{BatchMeta, ChunkQuery, ClusterSpec, Flops, ModelSpec, ModuleId, Seconds};

use crate::modality::{DeviceLayout, OperatorTable, PartQuery};
use crate::operators::Pass;

/// Returns the arithmetic of a batch in one replica, by the usual convention: the gradients of inputs and of weights cost one
/// forward each, and recompute does not count. Modalities of other crates count as plain transformer layers.
pub fn model_flops(model: &ModelSpec, batch: &BatchMeta) -> Flops {
    let runs_backward = model.runs_backward();
    let module = |m: usize| {
        let spec = &model.modules[m];
        let passes = match (runs_backward[m], spec.trainable) {
            (false, _) => 1.0,
            (true, false) => 2.0,
            (true, true) => 3.0,
        };
        let of_layers = if spec.has_frozen_tower() { 1.0 } else { passes };
        forward(model, ModuleId::from(m), batch, [of_layers, passes])
    };
    (0..model.modules.len()).map(module).sum()
}

/// The forward FLOPs of one module over all microbatches: of its start and its layers, and of its end, each so many times.
fn forward(model: &ModelSpec, module: ModuleId, batch: &BatchMeta, times: [f64; 2]) -> Flops {
    let whole = DeviceLayout { tensor: 1, element_bytes: 1 };
    let all = ChunkQuery::new(model, module, 0..model.modules[module.index()].layers);
    let windowed = all.layer_parts().filter(|&part| part == Part::Windowed).count() as f64;
    let parts = [
        (Part::First, times[0]),
        (Part::Layer, times[0] * (all.layers.len() as f64 - windowed)),
        (Part::Windowed, times[0] * windowed),
        (Part::Last, times[1] * (1.0 + all.stacked_layers() as f64)),
    ];
    let mut total = 0.0;
    for meta in &batch.microbatches {
        let (_, instances) = model.instances(module, meta);
        if instances == 0 {
            continue;
        }
        let work = model.workload(module, meta, 0..instances);
        for (part, count) in parts.into_iter().filter(|&(_, count)| count > 0.0) {
            let query = PartQuery { model, module, part, work, layout: whole };
            let operators = OperatorTable::default().operators(&query).operators(Pass::Forward);
            total += count * operators.iter().map(|op| op.flops.0).sum::<f64>();
        }
    }
    Flops(total)
}

/// Returns the MFU: `flops` over the peak arithmetic of the `tensor * pipeline` devices of a replica in `seconds`. 0 if
/// `seconds` is 0.
pub fn utilisation(
    model: &ModelSpec,
    cluster: &ClusterSpec,
    flops: Flops,
    seconds: Seconds,
) -> f64 {
    let devices = f64::from(model.parallel.tensor) * f64::from(model.parallel.pipeline);
    let peak = devices * cluster.device.flops_per_s * seconds.0;
    if peak > 0.0 { flops.0 / peak } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dip_core::{MicrobatchMeta, presets};

    fn batch(images: u32, text_tokens: u64) -> BatchMeta {
        let meta =
            MicrobatchMeta { images: images.into(), text_tokens, ..MicrobatchMeta::default() };
        BatchMeta { iteration: 0, microbatches: vec![meta; 2] }
    }

    #[test]
    fn a_language_model_takes_six_flops_per_weight_and_token() {
        let model = presets::model("vlm-s").unwrap();
        let (id, _) = model.module("language").unwrap();
        let parameters = model.parameters(id);
        // The embedding table is looked up, not multiplied.
        let multiplied = (parameters.total() - parameters.first) as f64;
        let (tokens, pairs) = (2.0 * 1000.0, 2.0 * 500_500.0);
        let expected = 6.0 * multiplied * tokens + 3.0 * 4.0 * 4096.0 * 32.0 * pairs;
        let found = model_flops(&model, &batch(0, 1000)).0;
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }

    #[test]
    fn frozen_modules_take_a_forward_only() {
        let mut model = presets::model("vlm-s").unwrap();
        let all = model_flops(&model, &batch(4, 1000)).0;
        let text = model_flops(&model, &batch(0, 1000 + 4 * 169)).0;
        model.modules[0].trainable = false;
        let frozen = model_flops(&model, &batch(4, 1000)).0;
        assert!(((all - text) / (frozen - text) - 3.0).abs() < 1e-9);
        let tower = {
            let vision = &mut model.modules[0];
            (vision.trainable, vision.frozen) = (true, vec!["tower".into()]);
            model_flops(&model, &batch(4, 1000)).0
        };
        // Nearly all of the encoder is its tower.
        assert!(tower > frozen && (tower - text) / (frozen - text) < 1.1, "{tower} {frozen}");
    }

    #[test]
    fn utilisation_is_of_one_replica() {
        let model = presets::model("vlm-s").unwrap();
        let cluster = presets::cluster("h800").unwrap();
        let used = utilisation(&model, &cluster, Flops(16.0 * 989e12), Seconds(2.0));
        assert!((used - 0.5).abs() < 1e-12);
        assert_eq!(utilisation(&model, &cluster, Flops(1.0), Seconds::ZERO), 0.0);
    }

    #[test]
    fn wan_multiplies_every_weight_and_attends_to_one_row_of_padding() {
        let model = ModelSpec::from_toml(
            "name = 'wan'\nsequence_tokens = 64\nmax_clips = 1\n\
             [[module]]\nname = 'text'\nlayers = 2\nhidden = 20\nffn = 28\nheads = 3\nhead_dim = 6\ntrainable = false\n\
             kind.t5 = { vocab = 64, buckets = 8, max_distance = 20 }\n\
             [[module]]\nname = 'video'\nlayers = 3\nhidden = 28\nffn = 36\nheads = 2\ninputs = ['text']\n\
             kind.dit = { latent_frames_per_second = 4.0, tokens_per_frame = 100, token_channels = 16, \
             wan = { patch = [1, 2, 2], caption_tokens = 512, step_waves = 16, flow_shift = 3.0 } }\n\
             [module.options]\nquery_key_norm = 'across_heads'\n",
        )
        .unwrap();
        let clip = dip_core::ClipMeta { seconds: 0.5, caption_tokens: 9, tokens_per_frame: None };
        let meta = MicrobatchMeta { clips: vec![clip], ..MicrobatchMeta::default() };
        let found = model_flops(&model, &BatchMeta { iteration: 0, microbatches: vec![meta] }).0;
        let (tokens, context, h, f) = (200.0, 10.0, 28.0, 36.0);
        let layer = 2.0 * tokens * (4.0 * h * h + 2.0 * h * h + 2.0 * h * f)
            + 2.0 * context * 2.0 * h * h
            + 4.0 * h * tokens * (tokens + context);
        let step = 2.0 * h * (16.0 + h + 6.0 * h);
        let ends = 2.0 * tokens * 2.0 * 16.0 * h + step + 2.0 * context * h * (20.0 + h);
        let (c, m, q) = (9.0, 20.0, 18.0);
        let text = 2.0 * (2.0 * c * (4.0 * m * q + 3.0 * m * 28.0) + 4.0 * q * c * c);
        let expected = 3.0 * (3.0 * layer + ends) + text;
        assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
    }
}

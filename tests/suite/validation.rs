//! The emulator against measurements that others have published. `docs/validation.md` names the sources and explains the misses:
//! `cargo test --release --no-default-features --test main validation -- --nocapture` prints its table.
//!
//! Only ratios of times are compared. Factors of the cost model are those of the H800 preset everywhere; none is fitted here.

use std::sync::Arc;

use dip::emulate::{AnalyticCost, GradientOverlap, Replicas, fsdp, step_figures};
use dip::plan::{
    BatchMeta, Bytes, ClusterSpec, DeviceSpec, Interleaved, LayerStrategy, LinkSpec,
    MicrobatchMeta, ModelSpec, OneFOneB, Parallelism, Placement, Planning, Schedule, presets,
};

/// A published ratio of two throughputs or times, and the emulated one.
struct Row {
    source: &'static str,
    what: &'static str,
    published: f64,
    predicted: f64,
}

impl Row {
    /// How far the prediction is off, relative to the published ratio.
    fn error(&self) -> f64 {
        self.predicted / self.published - 1.0
    }
}

/// A decoder of published sizes.
struct Model {
    hidden: u32,
    ffn: u32,
    layers: u32,
    heads: u32,
    kv_heads: u32,
    vocab: u32,
    sequence: u32,
    /// Two matrices in a feed-forward network, or three with a gate.
    gated: bool,
}

impl Model {
    /// A GPT with 51,200 words.
    fn gpt(hidden: u32, layers: u32, heads: u32, sequence: u32) -> Self {
        let (ffn, kv_heads, vocab) = (4 * hidden, heads, 51_200);
        Self { hidden, ffn, layers, heads, kv_heads, vocab, sequence, gated: false }
    }

    /// The model with `sequences` sequences in a microbatch.
    fn spec(&self, sequences: u32, parallel: Parallelism) -> ModelSpec {
        let Self { hidden, ffn, layers, heads, kv_heads, vocab, sequence, gated } = self;
        let text = format!(
            "name = 'published'\nsequence_tokens = {}\n[[module]]\nname = 'language'\nlayers = {layers}\nhidden = {hidden}\n\
             ffn = {ffn}\nheads = {heads}\nkv_heads = {kv_heads}\ngated_ffn = {gated}\nkind = {{ decoder = {{ vocab = {vocab}, head = true }} }}\n",
            sequence * sequences
        );
        ModelSpec { parallel, ..ModelSpec::from_toml(&text).unwrap() }
    }

    fn microbatch(&self, sequences: u32) -> MicrobatchMeta {
        let length = u64::from(self.sequence);
        MicrobatchMeta {
            text_tokens: length * u64::from(sequences),
            documents: vec![length; sequences as usize],
            ..MicrobatchMeta::default()
        }
    }
}

/// One run of a pipeline whose layers all recompute.
struct Run<'a> {
    model: Model,
    cluster: &'a ClusterSpec,
    /// Degrees of data, tensor and pipeline parallelism.
    parallel: [u32; 3],
    /// Sequences of a microbatch.
    sequences: u32,
    microbatches: usize,
    /// Chunks of a rank; more than one runs interleaved.
    chunks: u32,
}

impl Run<'_> {
    fn seconds(&self) -> f64 {
        let [data, tensor, pipeline] = self.parallel;
        let model = self.model.spec(self.sequences, Parallelism { data, tensor, pipeline });
        let mut cluster = self.cluster.clone();
        cluster.device.memory_bytes = Bytes::UNLIMITED;
        // Megatron-LM before its distributed optimiser: whole states, half-precision sums after the last backward.
        let replicas =
            Replicas { sharded: false, overlap: GradientOverlap::None, gradient_bytes: 2 };
        let cost = AnalyticCost::new(&model, &cluster)
            .with_strategies(&[LayerStrategy::Full])
            .with_replicas(replicas);
        let cost = Arc::new(cost);
        let planning = Planning::new(&model, &cluster, cost.clone()).unwrap();
        let partition = planning.partitioner().contiguous(self.chunks).unwrap();
        let planning = planning.with_partition(partition);
        let microbatches = vec![self.model.microbatch(self.sequences); self.microbatches];
        let batch = BatchMeta { iteration: 0, microbatches };
        let schedule: &dyn Schedule = if self.chunks > 1 { &Interleaved } else { &OneFOneB };
        assert!(matches!(schedule.placement(), Placement::Contiguous { .. }));
        let plan = planning.plan(&batch, schedule).unwrap();
        let step = step_figures(&cost, planning.partition(), &batch, &plan);
        step.seconds(plan.predicted.makespan_s).0
    }

    /// Sequences per second of all replicas.
    fn throughput(&self) -> f64 {
        let sequences = self.parallel[0] * self.sequences * self.microbatches as u32;
        f64::from(sequences) / self.seconds()
    }
}

/// Devices of a data sheet with the factors of the H800 preset. Bandwidths are in GB/s.
struct Sheet {
    tflops: f64,
    memory: f64,
    intra_node: f64,
    inter_node: f64,
    devices_per_node: u32,
}

impl Sheet {
    fn cluster(&self) -> ClusterSpec {
        let h800 = presets::cluster("h800").unwrap();
        ClusterSpec {
            name: "published".into(),
            device: DeviceSpec {
                flops_per_s: self.tflops * 1e12,
                memory_bytes_per_s: self.memory * 1e9,
                ..h800.device.clone()
            },
            links: LinkSpec {
                intra_node_bytes_per_s: self.intra_node * 1e9,
                inter_node_bytes_per_s: self.inter_node * 1e9,
                ..h800.links.clone()
            },
            devices_per_node: self.devices_per_node,
            nodes: 1024,
            ..h800
        }
    }
}

/// Four nodes of eight V100, six NVLinks a device, one 100 Gb/s adapter a node: DLPerf, Megatron-LM of May 2021.
fn dlperf() -> Vec<Row> {
    let sheet = Sheet {
        tflops: 125.0,
        memory: 900.0,
        intra_node: 150.0,
        inter_node: 12.5 / 8.0,
        devices_per_node: 8,
    };
    let cluster = sheet.cluster();
    let run = |[hidden, layers, heads]: [u32; 3], parallel, sequences, microbatches| {
        let model = Model::gpt(hidden, layers, heads, 2048);
        Run { model, cluster: &cluster, parallel, sequences, microbatches, chunks: 1 }.throughput()
    };
    let small = [1536, 16, 16];
    let large = [2304, 24, 24];
    let one = run(small, [1, 1, 1], 2, 1);
    let replicas = |data: u32| run(small, [data, 1, 1], 2, 1);
    let tensor_8 = run(small, [1, 8, 1], 16, 1);
    let (deep, wide) = (run(large, [2, 4, 4], 8, 32), run(large, [2, 8, 1], 8, 1));
    let row = |what, published, predicted| Row { source: "DLPerf", what, published, predicted };
    vec![
        row("8 replicas / 1, per device", 33.27 / 4.31 / 8.0, replicas(8) / one / 8.0),
        row("16 replicas / 1, per device", 48.16 / 4.31 / 16.0, replicas(16) / one / 16.0),
        row("32 replicas / 1, per device", 93.63 / 4.31 / 32.0, replicas(32) / one / 32.0),
        row("tensor 8 / data 8", 24.07 / 33.32, tensor_8 / replicas(8)),
        row("data 2, tensor 4 / data 8", 27.75 / 33.32, run(small, [2, 4, 1], 8, 1) / replicas(8)),
        row("data 4, tensor 2 / data 8", 26.95 / 33.32, run(small, [4, 2, 1], 4, 1) / replicas(8)),
        row(
            "tensor 16, 1.8B / tensor 8, 0.5B",
            2.85 / 23.11,
            run([3072, 16, 32], [1, 16, 1], 16, 1) / tensor_8,
        ),
        row(
            "tensor 32, 3.5B / tensor 8, 0.5B",
            1.23 / 23.11,
            run([3072, 32, 32], [1, 32, 1], 16, 1) / tensor_8,
        ),
        row(
            "data 4 / data 2, tensor 8, per device",
            21.21 / 12.18 / 2.0,
            run(large, [4, 8, 1], 8, 1) / wide / 2.0,
        ),
        row(
            "data 8, pipeline 4, 32 microbatches / data 32",
            104.63 / 93.63,
            run(small, [8, 1, 4], 2, 32) / replicas(32),
        ),
        row(
            "tensor 8, pipeline 4 / data 2, tensor 4, pipeline 4",
            23.10 / 33.40,
            run(large, [1, 8, 4], 16, 32) / deep,
        ),
        row(
            "data 2, tensor 8, pipeline 2 / data 2, tensor 4, pipeline 4",
            31.45 / 33.40,
            run(large, [2, 8, 2], 8, 32) / deep,
        ),
    ]
}

/// Weak scaling of tensor parallelism and of 128 replicas: Megatron-LM's tables of 2020. Times of 1, 2, 4 and 8 devices.
fn megatron() -> Vec<Row> {
    let a100 = Sheet {
        tflops: 312.0,
        memory: 1555.0,
        intra_node: 300.0,
        inter_node: 25.0,
        devices_per_node: 8,
    };
    let v100 =
        Sheet { tflops: 125.0, memory: 900.0, intra_node: 150.0, devices_per_node: 16, ..a100 };
    let sizes = [[1920, 24, 15], [2304, 30, 18], [3072, 36, 24], [4096, 42, 32]];
    let seconds = |sheet: &Sheet, data: u32, sequences: u32| -> Vec<f64> {
        let cluster = sheet.cluster();
        let of = |(i, [hidden, layers, heads]): (usize, [u32; 3])| {
            let (model, parallel) = (Model::gpt(hidden, layers, heads, 1024), [data, 1 << i, 1]);
            Run { model, cluster: &cluster, parallel, sequences, microbatches: 1, chunks: 1 }
                .seconds()
        };
        sizes.into_iter().enumerate().map(of).collect()
    };
    let (a, v, many) = (seconds(&a100, 1, 16), seconds(&v100, 1, 8), seconds(&a100, 128, 16));
    let row =
        |what, published, predicted| Row { source: "Megatron-LM", what, published, predicted };
    vec![
        row("A100, 2B on 2 / 1B on 1", 1026.0 / 1076.0, a[1] / a[0]),
        row("A100, 4B on 4 / 1B on 1", 1162.0 / 1076.0, a[2] / a[0]),
        row("A100, 8B on 8 / 1B on 1", 1343.0 / 1076.0, a[3] / a[0]),
        row("V100, 2B on 2 / 1B on 1", 1093.0 / 1121.0, v[1] / v[0]),
        row("V100, 4B on 4 / 1B on 1", 1238.0 / 1121.0, v[2] / v[0]),
        row("V100, 8B on 8 / 1B on 1", 1407.0 / 1121.0, v[3] / v[0]),
        row("A100, 1B, 128 replicas / 1", 1153.0 / 1076.0, many[0] / a[0]),
        row("A100, 2B on 2, 128 replicas / 1", 1101.0 / 1026.0, many[1] / a[1]),
        row("A100, 4B on 4, 128 replicas / 1", 1242.0 / 1162.0, many[2] / a[2]),
        row("A100, 8B on 8, 128 replicas / 1", 1380.0 / 1343.0, many[3] / a[3]),
    ]
}

/// Llama 3.1 on H100 with 2.4 TB/s of memory and 400 Gb/s a device: torchtitan's tables of December 2024.
fn torchtitan() -> Vec<Row> {
    let sheet = Sheet {
        tflops: 989.0,
        memory: 2400.0,
        intra_node: 450.0,
        inter_node: 50.0,
        devices_per_node: 8,
    };
    let small = Model {
        hidden: 4096,
        ffn: 14_336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        vocab: 128_256,
        sequence: 8192,
        gated: true,
    };
    let sharded = |devices: u32| {
        let mut cluster = sheet.cluster();
        cluster.device.memory_bytes = Bytes(96_000_000_000);
        let spec = small.spec(2, Parallelism { data: 1, tensor: 1, pipeline: devices });
        let microbatches = vec![small.microbatch(2); devices as usize];
        let step = fsdp(&spec, &cluster, &BatchMeta { iteration: 0, microbatches }).unwrap();
        step.unwrap().seconds.0
    };
    let eight_bit = Sheet { tflops: 1979.0, ..sheet };
    let cluster = eight_bit.cluster();
    let pipelined = |chunks| {
        let model = Model {
            hidden: 16_384,
            ffn: 53_248,
            layers: 126,
            heads: 128,
            kv_heads: 8,
            vocab: 128_256,
            sequence: 8192,
            gated: true,
        };
        let parallel = [1, 8, 8];
        Run { model, cluster: &cluster, parallel, sequences: 1, microbatches: 32, chunks }
            .throughput()
    };
    let row = |what, published, predicted| Row { source: "torchtitan", what, published, predicted };
    vec![
        row("8B, FSDP 128 / FSDP 8, per device", 5605.0 / 5762.0, sharded(8) / sharded(128)),
        row("405B, interleaved / 1F1B", 128.0 / 100.0, pipelined(2) / pipelined(1)),
    ]
}

#[test]
fn published_ratios_are_met_on_average() {
    let rows: Vec<Row> = [dlperf(), megatron(), torchtitan()].into_iter().flatten().collect();
    for Row { source, what, published, predicted } in &rows {
        let error = 100.0 * (predicted / published - 1.0);
        println!("| {source} | {what} | {published:.3} | {predicted:.3} | {error:+.0} % |");
    }
    let mut errors: Vec<f64> = rows.iter().map(|row| row.error().abs()).collect();
    errors.sort_by(f64::total_cmp);
    let (mean, median) = (errors.iter().sum::<f64>() / rows.len() as f64, errors[rows.len() / 2]);
    println!(
        "{} rows, mean error {:.1} %, median {:.1} %",
        rows.len(),
        100.0 * mean,
        100.0 * median
    );
    assert!(mean < 0.1 && median < 0.06, "mean {mean}, median {median}");
}

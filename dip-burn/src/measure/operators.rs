//! Micro-benchmarks of single operators, as the modules of this crate run them on a backend.
//!
//! Every kind of operator is measured in series of doubling sizes, until one takes longer than the settings allow. So the same grid
//! serves a core and an accelerator. All devices that will train measure at the same time.

use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Instant;

use burn::tensor::activation::sigmoid;
use burn::tensor::backend::Backend;
use burn::tensor::{Distribution, Tensor};
use dip_core::{
    Link, LinkError, Message, OperatorProfile, OperatorShape, OperatorTime, RankId, Seconds, TaskId,
};

use super::meeting::Meeting;
use super::{MeasureError, at_once, finish};
use crate::model::block::core;
use crate::model::block::heads::HeadSizes;
use crate::model::block::norm::Norm;
use crate::model::block::span::AttentionSpan;
use crate::model::{Init, Precision, cast, to_device};
use crate::params::ReadError;
use crate::runtime::ChannelLink;

/// Fewest sizes of a series: the error of a fitted line needs three points.
const LEAST_SIZES: usize = 3;
/// Values of the largest tensor, which must fit small devices.
const MOST_VALUES: u64 = 1 << 28;
/// The slowest link that is expected, in bytes/s. Messages are measured up to the size that it carries in the time of the longest
/// operator.
const SLOWEST_LINK: f64 = 4e9;
/// Calls of a short operator are timed together for at least this long.
const SAMPLE_S: f64 = 300e-6;

/// Limits on the time of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorSettings {
    /// A series ends before the first operator that takes longer.
    pub longest: Seconds,
    /// Samples of each operator.
    pub runs: usize,
    /// Compute threads of each device.
    pub threads: usize,
    /// The precision of values.
    pub precision: Precision,
    /// True if devices have their own memory, and the host copies to and from it.
    pub separate_memory: bool,
}

/// Measures operators on `devices`, all at the same time.
///
/// # Errors
/// [`MeasureError`] if a device fails.
pub fn operators<B: Backend>(
    devices: &[B::Device],
    settings: OperatorSettings,
) -> Result<OperatorProfile, MeasureError> {
    let first = devices.first().cloned().unwrap_or_default();
    let pilot = at_once(1, settings.threads, |_, _| shapes::<B>(&first, settings))?;
    let shapes = pilot.into_iter().next().unwrap_or_else(|| Ok(Vec::new()))?;
    let all = at_once(devices.len(), settings.threads, |rank, meeting| {
        times::<B>(&devices[rank.min(devices.len() - 1)], &shapes, settings, meeting)
    })?;
    let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mean = |i: usize| all.iter().map(|times| times[i]).sum::<f64>() / all.len() as f64;
    let mut times: Vec<_> = shapes
        .iter()
        .enumerate()
        .map(|(i, &shape)| OperatorTime { shape, seconds: Seconds(mean(i)) })
        .collect();
    if let [sender, receiver, ..] = devices {
        times.extend(messages::<B>([sender, receiver], settings)?);
    }
    let ranks = devices.len();
    let (name, precision) = (B::name(&first), settings.precision.name());
    let device = format!("{name} in {precision}, {ranks} devices of {} threads", settings.threads);
    let element_bytes = settings.precision.element_bytes() as u32;
    Ok(OperatorProfile { device, element_bytes, times })
}

/// Series of operators, each from small to large.
fn series(host_copies: bool) -> Vec<Vec<OperatorShape>> {
    let doubled = |from: u64, to: u64| {
        std::iter::successors(Some(from), |n| Some(2 * n)).take_while(move |&n| n <= to)
    };
    let mut all = Vec::new();
    for (r, i, o) in [(1, 1, 1), (4, 1, 1), (1, 4, 1), (1, 1, 4)] {
        let matmul = |n| OperatorShape::Matmul { rows: r * n, inner: i * n, outer: o * n };
        all.push(doubled(64, 16_384).map(matmul).collect());
    }
    for (sequences, heads, head_dim) in [(1, 4, 64), (8, 4, 64), (1, 8, 128)] {
        let attention = |tokens| OperatorShape::Attention { sequences, tokens, heads, head_dim };
        all.push(doubled(64, 8192).map(attention).collect());
    }
    for width in [256, 1024, 4096] {
        let rows = || doubled(64, 65_536);
        all.push(rows().map(|rows| OperatorShape::Norm { rows, width }).collect());
        all.push(rows().map(|rows| OperatorShape::Activation { rows, width }).collect());
        all.push(rows().map(|rows| OperatorShape::Residual { rows, width }).collect());
    }
    if host_copies {
        all.push(sizes().map(|bytes| OperatorShape::HostCopy { bytes }).collect());
    }
    all
}

/// Values of the largest tensor of an operator.
fn largest_tensor(shape: &OperatorShape) -> u64 {
    match *shape {
        OperatorShape::Matmul { rows, inner, outer } => {
            (rows * inner).max(inner * outer).max(rows * outer)
        }
        OperatorShape::Attention { sequences, tokens, heads, .. } => {
            sequences * heads * tokens * tokens
        }
        OperatorShape::Norm { rows, width }
        | OperatorShape::Activation { rows, width }
        | OperatorShape::Residual { rows, width } => rows * width,
        OperatorShape::Message { bytes } | OperatorShape::HostCopy { bytes } => bytes,
    }
}

/// Sizes of copies and messages.
fn sizes() -> impl Iterator<Item = u64> {
    (12..=28).step_by(2).map(|bits| 1 << bits)
}

/// The operators that are short enough, measured alone on one device.
fn shapes<B: Backend>(
    device: &B::Device,
    settings: OperatorSettings,
) -> Result<Vec<OperatorShape>, ReadError> {
    let mut shapes = Vec::new();
    for series in series(settings.separate_memory) {
        let small = |shape: &OperatorShape| largest_tensor(shape) <= MOST_VALUES;
        for (i, shape) in series.into_iter().take_while(small).enumerate() {
            let mut operator = PreparedOperator::<B>::new(shape, device, settings.precision);
            operator.run(1)?;
            if operator.run(1)? > settings.longest.0 && i >= LEAST_SIZES {
                break;
            }
            shapes.push(shape);
        }
    }
    Ok(shapes)
}

/// Seconds of every operator, while the other devices measure it, too.
fn times<B: Backend>(
    device: &B::Device,
    shapes: &[OperatorShape],
    settings: OperatorSettings,
    meeting: &Meeting,
) -> Result<Vec<f64>, ReadError> {
    let time = |&shape| {
        let mut operator = PreparedOperator::<B>::new(shape, device, settings.precision);
        let alone = operator.run(1)?.max(1e-9);
        let calls = (SAMPLE_S / alone).ceil().clamp(1.0, 1000.0) as usize;
        meeting.wait();
        let samples: Vec<f64> =
            (0..settings.runs.max(1)).map(|_| operator.run(calls)).collect::<Result<_, _>>()?;
        Ok(undisturbed(samples.into_iter()))
    };
    shapes.iter().map(time).collect()
}

/// An operator with its inputs on a device.
struct PreparedOperator<'a, B: Backend> {
    device: &'a B::Device,
    call: Box<dyn Fn() + 'a>,
}

impl<'a, B: Backend> PreparedOperator<'a, B> {
    fn new(shape: OperatorShape, device: &'a B::Device, precision: Precision) -> Self {
        let random = |rows: u64, width: u64| -> Tensor<B, 2> {
            let uniform = Distribution::Uniform(-1.0, 1.0);
            let x = Tensor::random([rows as usize, width as usize], uniform, device);
            cast(x, precision.dtype())
        };
        let call: Box<dyn Fn()> = match shape {
            OperatorShape::Matmul { rows, inner, outer } => {
                let (x, w) = (random(rows, inner), random(inner, outer));
                Box::new(move || drop(x.clone().matmul(w.clone())))
            }
            OperatorShape::Attention { sequences, tokens, heads, head_dim } => {
                let inputs = || random(sequences * tokens, heads * head_dim);
                let inputs =
                    core::AttentionInputs { query: inputs(), key: inputs(), value: inputs() };
                let spans = [AttentionSpan::full(sequences as usize, tokens as usize)];
                let [heads, head_dim] = [heads, head_dim].map(|n| n as usize);
                let heads = HeadSizes { heads, kv_heads: heads, head_dim };
                Box::new(move || drop(core::attend(&inputs, &spans, heads)))
            }
            OperatorShape::Norm { rows, width } => {
                let init = Init { seed: 0, module: "measured", device, read: false };
                let (x, norm) = (random(rows, width), Norm::<B>::rms(width as usize, &init));
                Box::new(move || drop(norm.forward(x.clone())))
            }
            OperatorShape::Activation { rows, width } => {
                let (gate, up) = (random(rows, width), random(rows, width));
                Box::new(move || drop(gate.clone() * sigmoid(gate.clone()) * up.clone()))
            }
            OperatorShape::Residual { rows, width } => {
                let (x, y) = (random(rows, width), random(rows, width));
                Box::new(move || drop(x.clone() + y.clone()))
            }
            OperatorShape::Message { bytes } | OperatorShape::HostCopy { bytes } => {
                let x = random(1, bytes.div_ceil(precision.element_bytes()));
                Box::new(move || drop(x.clone().into_data()))
            }
        };
        Self { device, call }
    }

    /// Seconds of one of `calls` calls.
    fn run(&mut self, calls: usize) -> Result<f64, ReadError> {
        finish::<B>(self.device)?;
        let start = Instant::now();
        (0..calls).for_each(|_| (self.call)());
        finish::<B>(self.device)?;
        Ok(start.elapsed().as_secs_f64() / calls as f64)
    }
}

/// The lower quartile: other programs make samples longer, never shorter.
fn undisturbed(samples: impl Iterator<Item = f64>) -> f64 {
    let mut samples: Vec<f64> = samples.collect();
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 4).copied().unwrap_or(0.0)
}

/// Seconds of messages from one rank to another: half of a round trip.
fn messages<B: Backend>(
    devices: [&B::Device; 2],
    settings: OperatorSettings,
) -> Result<Vec<OperatorTime>, MeasureError> {
    let links: Vec<_> =
        ChannelLink::mesh(2).into_iter().map(|link| Mutex::new(Some(link))).collect();
    let largest = settings.longest.0 * SLOWEST_LINK;
    let sizes = || {
        let all = sizes().enumerate();
        let short = |&(i, bytes): &(usize, u64)| i < LEAST_SIZES || bytes as f64 <= largest;
        all.take_while(short).map(|(_, bytes)| bytes)
    };
    let ends = at_once(2, settings.threads, |rank, _| {
        let link = links[rank].lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut end = LinkEnd::<B> { link: link?, rank, device: devices[rank] };
        Some(sizes().map(|bytes| end.message(bytes, settings.runs)).collect::<Result<Vec<_>, _>>())
    })?;
    let first = ends.into_iter().next().flatten().unwrap_or_else(|| Ok(Vec::new()))?;
    let time =
        |(bytes, s)| OperatorTime { shape: OperatorShape::Message { bytes }, seconds: Seconds(s) };
    Ok(sizes().zip(first).map(time).collect())
}

/// One of two ranks that send each other messages.
struct LinkEnd<'a, B: Backend> {
    link: ChannelLink<Tensor<B, 2>>,
    rank: usize,
    device: &'a B::Device,
}

impl<B: Backend> LinkEnd<'_, B> {
    /// Seconds of a message; rank 0 begins, rank 1 answers.
    fn message(&mut self, bytes: u64, runs: usize) -> Result<f64, MeasureError> {
        let values = bytes / size_of::<f32>() as u64;
        let mut x = Tensor::<B, 2>::zeros([1, values as usize], self.device);
        let mut samples = Vec::new();
        for _ in 0..runs + 1 {
            finish::<B>(self.device)?;
            let start = Instant::now();
            if self.rank == 0 {
                self.send(x)?;
                x = self.receive()?;
            } else {
                x = self.receive()?;
                self.send(x.clone())?;
            }
            samples.push(start.elapsed().as_secs_f64() / 2.0);
        }
        // The first message finds both threads asleep and memory untouched.
        Ok(undisturbed(samples.into_iter().skip(1)))
    }

    fn send(&mut self, x: Tensor<B, 2>) -> Result<(), LinkError> {
        self.link.isend(&between(self.rank, 1 - self.rank), x)
    }

    /// Copies the tensor: ranks of one process hand over references, and tensors move when they are read.
    fn receive(&mut self) -> Result<Tensor<B, 2>, MeasureError> {
        let message = between(1 - self.rank, self.rank);
        self.link.wait_any(&[message])?;
        let Poll::Ready(sent) = self.link.try_irecv(&message)? else {
            return Err(LinkError::PeerGone { peer: message.from }.into());
        };
        let x = to_device(sent.clone(), self.device) + 0.0;
        finish::<B>(self.device)?;
        Ok(x)
    }
}

fn between(from: usize, to: usize) -> Message {
    let (producer, consumer) = (TaskId::from(from), TaskId::from(to));
    Message { producer, consumer, from: RankId::from(from), to: RankId::from(to) }
}

#[cfg(test)]
mod tests {
    use burn::backend::Flex;

    use super::*;

    #[test]
    fn every_kind_of_operator_is_measured_at_several_sizes() {
        let settings = OperatorSettings {
            longest: Seconds(1e-6),
            runs: 1,
            threads: 1,
            precision: Precision::F32,
            separate_memory: true,
        };
        let profile =
            operators::<Flex>(&[Default::default(), Default::default()], settings).unwrap();
        assert_eq!(profile.element_bytes, 4);
        for name in
            ["matmul", "attention", "norm", "activation", "residual", "message", "host copy"]
        {
            let of_kind = profile.times.iter().filter(|t| t.shape.name() == name);
            assert!(of_kind.count() >= LEAST_SIZES, "{name}");
        }
        assert!(profile.times.iter().all(|t| t.seconds.0 > 0.0 && t.seconds.0 < 10.0));
    }
}

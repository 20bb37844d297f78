//! Attention over the keys of each query, in one launch for all sequences and heads, without a matrix of scores (FlashAttention).
//!
//! A cube computes a block of queries of one head against blocks of their keys, with running maxima and sums. Each query has a range
//! of keys, so sequences, causality and windows need no mask. Products are scalar: the kernels are for packs of short sequences,
//! which matrix products would compute one by one. Matrix products run long sequences.
//!
//! Shape legend: r query rows, c key rows, h heads, k key-value heads, d head width, b rows of a block.

use burn::tensor::{DType, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, empty, empty_like, tensor};
use crate::kernels::attention::ATTENTION_BLOCK as BLOCK;
use crate::kernels::{AttentionRanges, PackedAttention};

/// Below every score.
const LOWEST: f32 = -1.0e30;

/// Sizes of the heads, as the kernels are compiled for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sizes {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// Copies the block of rows from `first` of one head to shared memory; rows from `rows` on are zeros.
#[cube]
fn load<F: Float>(
    x: &Array<F>,
    block: &mut SharedMemory<f32>,
    first: usize,
    rows: usize,
    head: usize,
    #[comptime] heads: usize,
    #[comptime] head_dim: usize,
) {
    let mut i = UNIT_POS as usize;
    while i < BLOCK * head_dim {
        let row = first + i / head_dim;
        if row < rows {
            block[i] = f32::cast_from(x[(row * heads + head) * head_dim + i % head_dim]);
        } else {
            block[i] = 0.0f32;
        }
        i += BLOCK * BLOCK;
    }
}

/// The product of row `a` of one block with row `b` of another.
#[cube]
fn dot(
    x: &SharedMemory<f32>,
    y: &SharedMemory<f32>,
    a: usize,
    b: usize,
    #[comptime] head_dim: usize,
) -> f32 {
    let mut sum = 0.0f32;
    for i in 0..head_dim {
        sum += x[a * head_dim + i] * y[b * head_dim + i];
    }
    sum
}

/// Adds to the sums of a unit: weights of row `a`, `[b, b]`, times the columns `lane`, `lane + b`, and so on of a block.
#[cube]
fn accumulate(
    sums: &mut Array<f32>,
    weights: &SharedMemory<f32>,
    x: &SharedMemory<f32>,
    a: usize,
    lane: usize,
    #[comptime] head_dim: usize,
) {
    #[unroll]
    for j in 0..head_dim / BLOCK {
        let mut sum = sums[j];
        for b in 0..BLOCK {
            sum += weights[a * BLOCK + b] * x[b * head_dim + j * BLOCK + lane];
        }
        sums[j] = sum;
    }
}

#[cube(launch)]
fn forward_kernel<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    table: &Array<i32>,
    y: &mut Array<F>,
    log_sums: &mut Array<f32>,
    #[comptime] sizes: Sizes,
    #[define(F)] _dtype: StorageType,
) {
    let heads = comptime!(sizes.heads);
    let kv_heads = comptime!(sizes.kv_heads);
    let head_dim = comptime!(sizes.head_dim);
    let group = comptime!(sizes.heads / sizes.kv_heads);
    let rows = query.len() / (heads * head_dim);
    let keys = key.len() / (kv_heads * head_dim);
    let head = CUBE_POS_Y as usize;
    let kv_head = head / group;
    let first = CUBE_POS_X as usize * BLOCK;
    let unit = UNIT_POS as usize;
    let a = unit / BLOCK;
    let lane = unit % BLOCK;
    let row = first + a;
    let mut q = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut kv = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut weights = SharedMemory::<f32>::new(comptime!(BLOCK * BLOCK));
    load::<F>(query, &mut q, first, rows, head, heads, head_dim);
    let mut start = 0usize;
    let mut end = 0usize;
    if row < rows {
        start = table[row] as usize;
        end = table[rows + row] as usize;
    }
    let mut sums = Array::<f32>::new(comptime!(sizes.head_dim / BLOCK));
    #[unroll]
    for j in 0..head_dim / BLOCK {
        sums[j] = 0.0f32;
    }
    let mut most = f32::new(LOWEST);
    let mut total = 0.0f32;
    let block = 2 * (rows + CUBE_POS_X as usize);
    let mut at = table[block] as usize;
    let last = table[block + 1] as usize;
    while at < last {
        load::<F>(key, &mut kv, at, keys, kv_head, kv_heads, head_dim);
        sync_cube();
        let seen = at + lane >= start && at + lane < end;
        let mut score = f32::new(LOWEST);
        if seen {
            score = dot(&q, &kv, a, lane, head_dim);
        }
        weights[unit] = score;
        sync_cube();
        let mut next = most;
        for b in 0..BLOCK {
            next = max(next, weights[a * BLOCK + b]);
        }
        sync_cube();
        let mut weight = 0.0f32;
        if seen {
            weight = (score - next).exp();
        }
        weights[unit] = weight;
        load::<F>(value, &mut kv, at, keys, kv_head, kv_heads, head_dim);
        sync_cube();
        let shrink = (most - next).exp();
        total *= shrink;
        for b in 0..BLOCK {
            total += weights[a * BLOCK + b];
        }
        #[unroll]
        for j in 0..head_dim / BLOCK {
            sums[j] = sums[j] * shrink;
        }
        accumulate(&mut sums, &weights, &kv, a, lane, head_dim);
        most = next;
        sync_cube();
        at += BLOCK;
    }
    if row < rows {
        let share = 1.0f32 / max(total, 1.0e-30f32);
        #[unroll]
        for j in 0..head_dim / BLOCK {
            y[(row * heads + head) * head_dim + j * BLOCK + lane] = F::cast_from(sums[j] * share);
        }
        if lane == 0 {
            log_sums[row * heads + head] = most + total.ln();
        }
    }
}

#[cube(launch)]
fn queries_kernel<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    y: &Array<F>,
    dy: &Array<F>,
    log_sums: &Array<f32>,
    table: &Array<i32>,
    d_query: &mut Array<F>,
    alongs: &mut Array<f32>,
    #[comptime] sizes: Sizes,
    #[define(F)] _dtype: StorageType,
) {
    let heads = comptime!(sizes.heads);
    let kv_heads = comptime!(sizes.kv_heads);
    let head_dim = comptime!(sizes.head_dim);
    let group = comptime!(sizes.heads / sizes.kv_heads);
    let rows = query.len() / (heads * head_dim);
    let keys = key.len() / (kv_heads * head_dim);
    let head = CUBE_POS_Y as usize;
    let kv_head = head / group;
    let first = CUBE_POS_X as usize * BLOCK;
    let unit = UNIT_POS as usize;
    let a = unit / BLOCK;
    let lane = unit % BLOCK;
    let row = first + a;
    let mut q = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut d = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut kv = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut weights = SharedMemory::<f32>::new(comptime!(BLOCK * BLOCK));
    load::<F>(query, &mut q, first, rows, head, heads, head_dim);
    load::<F>(dy, &mut d, first, rows, head, heads, head_dim);
    load::<F>(y, &mut kv, first, rows, head, heads, head_dim);
    sync_cube();
    let along = dot(&d, &kv, a, a, head_dim);
    sync_cube();
    let mut start = 0usize;
    let mut end = 0usize;
    let mut log_sum = 0.0f32;
    if row < rows {
        start = table[row] as usize;
        end = table[rows + row] as usize;
        log_sum = log_sums[row * heads + head];
        if lane == 0 {
            alongs[row * heads + head] = along;
        }
    }
    let mut sums = Array::<f32>::new(comptime!(sizes.head_dim / BLOCK));
    #[unroll]
    for j in 0..head_dim / BLOCK {
        sums[j] = 0.0f32;
    }
    let block = 2 * (rows + CUBE_POS_X as usize);
    let mut at = table[block] as usize;
    let last = table[block + 1] as usize;
    while at < last {
        load::<F>(value, &mut kv, at, keys, kv_head, kv_heads, head_dim);
        sync_cube();
        let d_weight = dot(&d, &kv, a, lane, head_dim);
        sync_cube();
        load::<F>(key, &mut kv, at, keys, kv_head, kv_heads, head_dim);
        sync_cube();
        let mut d_score = 0.0f32;
        if at + lane >= start && at + lane < end {
            let weight = (dot(&q, &kv, a, lane, head_dim) - log_sum).exp();
            d_score = weight * (d_weight - along);
        }
        weights[unit] = d_score;
        sync_cube();
        accumulate(&mut sums, &weights, &kv, a, lane, head_dim);
        sync_cube();
        at += BLOCK;
    }
    if row < rows {
        #[unroll]
        for j in 0..head_dim / BLOCK {
            d_query[(row * heads + head) * head_dim + j * BLOCK + lane] = F::cast_from(sums[j]);
        }
    }
}

#[cube(launch)]
fn keys_kernel<F: Float>(
    query: &Array<F>,
    key: &Array<F>,
    value: &Array<F>,
    dy: &Array<F>,
    log_sums: &Array<f32>,
    alongs: &Array<f32>,
    table: &Array<i32>,
    d_key: &mut Array<F>,
    d_value: &mut Array<F>,
    #[comptime] sizes: Sizes,
    #[define(F)] _dtype: StorageType,
) {
    let heads = comptime!(sizes.heads);
    let kv_heads = comptime!(sizes.kv_heads);
    let head_dim = comptime!(sizes.head_dim);
    let group = comptime!(sizes.heads / sizes.kv_heads);
    let rows = query.len() / (heads * head_dim);
    let keys = key.len() / (kv_heads * head_dim);
    let kv_head = CUBE_POS_Y as usize;
    let first = CUBE_POS_X as usize * BLOCK;
    let unit = UNIT_POS as usize;
    let a = unit / BLOCK;
    let lane = unit % BLOCK;
    let row = first + a;
    let mut k = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut v = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut other = SharedMemory::<f32>::new(comptime!(BLOCK * sizes.head_dim));
    let mut weights = SharedMemory::<f32>::new(comptime!(BLOCK * BLOCK));
    load::<F>(key, &mut k, first, keys, kv_head, kv_heads, head_dim);
    load::<F>(value, &mut v, first, keys, kv_head, kv_heads, head_dim);
    let mut key_sums = Array::<f32>::new(comptime!(sizes.head_dim / BLOCK));
    let mut value_sums = Array::<f32>::new(comptime!(sizes.head_dim / BLOCK));
    #[unroll]
    for j in 0..head_dim / BLOCK {
        key_sums[j] = 0.0f32;
        value_sums[j] = 0.0f32;
    }
    let block = 2 * (rows + (rows + BLOCK - 1) / BLOCK + CUBE_POS_X as usize);
    for g in 0..group {
        let head = kv_head * group + g;
        let mut at = table[block] as usize;
        let last = table[block + 1] as usize;
        while at < last {
            load::<F>(query, &mut other, at, rows, head, heads, head_dim);
            sync_cube();
            let seen_by = at + lane;
            let mut weight = 0.0f32;
            let mut along = 0.0f32;
            if seen_by < rows {
                if row >= table[seen_by] as usize && row < table[rows + seen_by] as usize {
                    let score = dot(&k, &other, a, lane, head_dim);
                    weight = (score - log_sums[seen_by * heads + head]).exp();
                    along = alongs[seen_by * heads + head];
                }
            }
            weights[unit] = weight;
            sync_cube();
            load::<F>(dy, &mut other, at, rows, head, heads, head_dim);
            sync_cube();
            accumulate(&mut value_sums, &weights, &other, a, lane, head_dim);
            let d_score = weight * (dot(&v, &other, a, lane, head_dim) - along);
            sync_cube();
            weights[unit] = d_score;
            load::<F>(query, &mut other, at, rows, head, heads, head_dim);
            sync_cube();
            accumulate(&mut key_sums, &weights, &other, a, lane, head_dim);
            sync_cube();
            at += BLOCK;
        }
    }
    if row < keys {
        #[unroll]
        for j in 0..head_dim / BLOCK {
            let place = (row * kv_heads + kv_head) * head_dim + j * BLOCK + lane;
            d_key[place] = F::cast_from(key_sums[j]);
            d_value[place] = F::cast_from(value_sums[j]);
        }
    }
}

type Matrix<R, I, BT> = Tensor<CubeBackend<R, f32, I, BT>, 2>;

fn grid(rows: usize, heads: usize) -> CubeCount {
    CubeCount::Static(rows.div_ceil(BLOCK) as u32, heads as u32, 1)
}

/// True if the kernels take heads of this width.
pub fn takes(head_dim: usize) -> bool {
    head_dim.is_multiple_of(BLOCK) && head_dim <= 128
}

/// The result, `[r, h * d]`, and the logarithms of the sums of the exponentials of the scores, `[r, h]`, in f32.
pub fn forward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    given: &PackedAttention<CubeBackend<R, f32, I, BT>>,
    ranges: &AttentionRanges<CubeBackend<R, f32, I, BT>>,
) -> [Matrix<R, I, BT>; 2] {
    let sizes = sizes(given);
    let [rows, _] = given.query.dims();
    let query = array(given.query.clone());
    let y = empty_like(&query);
    let log_sums = empty(&query, [rows, sizes.heads], DType::F32);
    let dtype = query.dtype.into();
    forward_kernel::launch(
        &y.client,
        grid(rows, sizes.heads),
        CubeDim::new_1d((BLOCK * BLOCK) as u32),
        query.into_array_arg(),
        array(given.key.clone()).into_array_arg(),
        array(given.value.clone()).into_array_arg(),
        ranges.table.clone().into_primitive().into_array_arg(),
        y.clone().into_array_arg(),
        log_sums.clone().into_array_arg(),
        sizes,
        dtype,
    );
    [tensor(y), tensor(log_sums)]
}

pub fn backward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    given: &PackedAttention<CubeBackend<R, f32, I, BT>>,
    ranges: &AttentionRanges<CubeBackend<R, f32, I, BT>>,
    [y, log_sums]: [Matrix<R, I, BT>; 2],
    dy: Matrix<R, I, BT>,
) -> [Matrix<R, I, BT>; 3] {
    let sizes = sizes(given);
    let ([rows, _], [keys, _]) = (given.query.dims(), given.key.dims());
    let [query, key, value] = [&given.query, &given.key, &given.value].map(|x| array(x.clone()));
    let (y, dy, log_sums) = (array(y), array(dy), array(log_sums));
    let table = ranges.table.clone().into_primitive();
    let (d_query, d_key, d_value) = (empty_like(&query), empty_like(&key), empty_like(&value));
    let alongs = empty(&query, [rows, sizes.heads], DType::F32);
    let (client, dtype): (_, StorageType) = (query.client.clone(), query.dtype.into());
    let cube = CubeDim::new_1d((BLOCK * BLOCK) as u32);
    queries_kernel::launch(
        &client,
        grid(rows, sizes.heads),
        cube,
        query.clone().into_array_arg(),
        key.clone().into_array_arg(),
        value.clone().into_array_arg(),
        y.into_array_arg(),
        dy.clone().into_array_arg(),
        log_sums.clone().into_array_arg(),
        table.clone().into_array_arg(),
        d_query.clone().into_array_arg(),
        alongs.clone().into_array_arg(),
        sizes,
        dtype,
    );
    keys_kernel::launch(
        &client,
        grid(keys, sizes.kv_heads),
        cube,
        query.into_array_arg(),
        key.into_array_arg(),
        value.into_array_arg(),
        dy.into_array_arg(),
        log_sums.into_array_arg(),
        alongs.into_array_arg(),
        table.into_array_arg(),
        d_key.clone().into_array_arg(),
        d_value.clone().into_array_arg(),
        sizes,
        dtype,
    );
    [tensor(d_query), tensor(d_key), tensor(d_value)]
}

fn sizes<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    given: &PackedAttention<CubeBackend<R, f32, I, BT>>,
) -> Sizes {
    let PackedAttention { heads, kv_heads, head_dim, .. } = *given;
    Sizes { heads, kv_heads, head_dim }
}

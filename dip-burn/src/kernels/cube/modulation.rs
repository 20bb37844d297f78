//! Rows scaled, shifted and gated by the tables of their clips. Shape legend: n clips, r rows, m width, a values of a table.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};

use super::launch::{array, empty_like, own, pointwise, tensor, vector_of};
use crate::kernels::{Addend, ClipRows, ClipTables, RowFactor};

/// Columns of a cube that sums the rows of a clip.
const COLUMNS: usize = 32;
/// Rows that it reads at the same time: a power of two.
const LANES: usize = 8;

/// What is added to a scaled row, as kernels are compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Added {
    Nothing,
    Shift,
    Rows,
}

#[cube(launch)]
fn modulated_kernel<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    rows: &Array<Vector<F, N>>,
    steps: &Array<Vector<F, N>>,
    own: &Array<Vector<F, N>>,
    clips: &Array<i32>,
    y: &mut Array<Vector<F, N>>,
    width: u32,
    of_table: u32,
    factor: u32,
    shift: u32,
    base: f32,
    #[comptime] added: Added,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= y.len() {
        terminate!();
    }
    let width = width as usize;
    let column = i % width;
    let table = clips[i / width] as usize * of_table as usize;
    let at = factor as usize * width + column;
    let factor = Vector::<f32, N>::cast_from(steps[table + at])
        + Vector::<f32, N>::cast_from(own[at])
        + Vector::new(base);
    let scaled = Vector::<f32, N>::cast_from(x[i]) * factor;
    let result = match comptime!(added) {
        Added::Nothing => scaled,
        Added::Shift => {
            let at = shift as usize * width + column;
            scaled
                + Vector::<f32, N>::cast_from(steps[table + at])
                + Vector::<f32, N>::cast_from(own[at])
        }
        Added::Rows => scaled + Vector::<f32, N>::cast_from(rows[i]),
    };
    y[i] = Vector::cast_from(result);
}

#[cube(launch)]
fn sums_kernel<F: Float>(
    x: &Array<F>,
    dy: &Array<F>,
    clips: &Array<i32>,
    d_tables: &mut Array<F>,
    rows: u32,
    width: u32,
    of_table: u32,
    factor: u32,
    shift: u32,
    #[comptime] shifts: bool,
    #[define(F)] _dtype: StorageType,
) {
    let mut products = SharedMemory::<f32>::new(256usize);
    let mut sums = SharedMemory::<f32>::new(256usize);
    let width = width as usize;
    let column = (CUBE_POS_X * CUBE_DIM_X + UNIT_POS_X) as usize;
    let lane = UNIT_POS_Y as usize;
    let lanes = CUBE_DIM_Y as usize;
    let clip = CUBE_POS_Y as usize;
    let mut row = clips[rows as usize + clip] as usize + lane;
    let last = clips[rows as usize + clip + 1] as usize;
    let mut product = 0.0f32;
    let mut sum = 0.0f32;
    if column < width {
        while row < last {
            let d = f32::cast_from(dy[row * width + column]);
            product += d * f32::cast_from(x[row * width + column]);
            sum += d;
            row += lanes;
        }
    }
    let unit = UNIT_POS as usize;
    let across = CUBE_DIM_X as usize;
    products[unit] = product;
    sums[unit] = sum;
    sync_cube();
    let mut half = lanes / 2;
    while half > 0 {
        if lane < half {
            products[unit] = products[unit] + products[unit + half * across];
            sums[unit] = sums[unit] + sums[unit + half * across];
        }
        sync_cube();
        half /= 2;
    }
    if lane == 0 && column < width {
        let table = clip * of_table as usize + column;
        d_tables[table + factor as usize * width] = F::cast_from(products[unit]);
        if shifts {
            d_tables[table + shift as usize * width] = F::cast_from(sums[unit]);
        }
    }
}

type Matrix<R, I, BT> = Tensor<CubeBackend<R, f32, I, BT>, 2>;

pub fn modulated<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    x_rm: Matrix<R, I, BT>,
    tables: &ClipTables<'_, CubeBackend<R, f32, I, BT>>,
    RowFactor { part, base }: RowFactor,
    addend: Addend<CubeBackend<R, f32, I, BT>>,
) -> Matrix<R, I, BT> {
    let ([_, width], [_, of_table]) = (x_rm.dims(), tables.steps_na.dims());
    let x = array(x_rm);
    let (added, shift, rows) = match addend {
        Addend::Nothing => (Added::Nothing, 0, x.clone()),
        Addend::Shift(part) => (Added::Shift, part, x.clone()),
        Addend::Rows(rows) => (Added::Rows, 0, array(rows)),
    };
    let y = empty_like(&x);
    let (dtype, vector) = (x.dtype, vector_of(width, x.dtype));
    let (grid, cube) = pointwise(x.meta.num_elements(), vector);
    modulated_kernel::launch(
        &y.client,
        grid,
        cube,
        vector,
        x.into_array_arg(),
        rows.into_array_arg(),
        array(tables.steps_na.clone()).into_array_arg(),
        array(tables.own_1k.clone()).into_array_arg(),
        tables.clips.table.clone().into_primitive().into_array_arg(),
        y.clone().into_array_arg(),
        (width / vector) as u32,
        (of_table / vector) as u32,
        part as u32,
        shift as u32,
        base as f32,
        added,
        dtype.into(),
    );
    tensor(y)
}

pub fn table_gradients<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    d_tables_na: Matrix<R, I, BT>,
    [x_rm, dy_rm]: [Matrix<R, I, BT>; 2],
    clips: &ClipRows<CubeBackend<R, f32, I, BT>>,
    factor: usize,
    shift: Option<usize>,
) -> Matrix<R, I, BT> {
    let ([rows, width], [n, of_table]) = (x_rm.dims(), d_tables_na.dims());
    let d_tables = own(array(d_tables_na));
    let dtype = d_tables.dtype;
    sums_kernel::launch(
        &d_tables.client,
        CubeCount::Static(width.div_ceil(COLUMNS) as u32, n as u32, 1),
        CubeDim::new_2d(COLUMNS as u32, LANES as u32),
        array(x_rm).into_array_arg(),
        array(dy_rm).into_array_arg(),
        clips.table.clone().into_primitive().into_array_arg(),
        d_tables.clone().into_array_arg(),
        rows as u32,
        width as u32,
        of_table as u32,
        factor as u32,
        shift.unwrap_or(0) as u32,
        shift.is_some(),
        dtype.into(),
    );
    tensor(d_tables)
}

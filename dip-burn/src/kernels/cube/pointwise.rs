//! Activations and gated units: every value alone.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::{BoolElement, CubeBackend, CubeRuntime, IntElement};
use dip_core::Activation;

use super::launch::{array, empty_like, pointwise, tensor, vector_of};

/// `1 / sqrt(2 pi)`
const BELL: f32 = 0.398_942_3;
/// Slope of the sigmoid in QuickGELU.
const QUICK: f32 = 1.702;
/// `sqrt(2 / pi)` and the weight of the cube in the approximation by a hyperbolic tangent.
const TANH: f32 = 0.797_884_56;
const CUBE: f32 = 0.044_715;

/// An activation, as kernels are compiled for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Curve {
    Gelu,
    Quick,
    Tanh,
}

impl From<Activation> for Curve {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Gelu => Self::Gelu,
            Activation::QuickGelu => Self::Quick,
            Activation::GeluTanh => Self::Tanh,
        }
    }
}

#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    one / (one + (Vector::new(0.0f32) - x).exp())
}

/// `tanh(sqrt(2 / pi) (x + c x^3))`, by a sigmoid: the library's own overflows on some devices.
#[cube]
fn bend<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let inner = (x + x * x * x * Vector::new(CUBE)) * Vector::new(TANH);
    Vector::new(2.0f32) * sigmoid::<N>(Vector::new(2.0f32) * inner) - Vector::new(1.0f32)
}

#[cube]
fn curve_of<N: Size>(x: Vector<f32, N>, #[comptime] curve: Curve) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    let half = Vector::new(0.5f32);
    match comptime!(curve) {
        Curve::Gelu => x * half * (one + (x * Vector::new(core::f32::consts::FRAC_1_SQRT_2)).erf()),
        Curve::Quick => x * sigmoid::<N>(x * Vector::new(QUICK)),
        Curve::Tanh => x * half * (one + bend::<N>(x)),
    }
}

#[cube]
fn slope_of<N: Size>(x: Vector<f32, N>, #[comptime] curve: Curve) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    let half = Vector::new(0.5f32);
    match comptime!(curve) {
        Curve::Gelu => {
            let below = half * (one + (x * Vector::new(core::f32::consts::FRAC_1_SQRT_2)).erf());
            below + x * (x * x * Vector::new(-0.5f32)).exp() * Vector::new(BELL)
        }
        Curve::Quick => {
            let open = sigmoid::<N>(x * Vector::new(QUICK));
            open + x * open * (one - open) * Vector::new(QUICK)
        }
        Curve::Tanh => {
            let bend = bend::<N>(x);
            let inner = (x * x * Vector::new(3.0f32 * CUBE) + one) * Vector::new(TANH);
            half * (one + bend + x * (one - bend * bend) * inner)
        }
    }
}

#[cube(launch)]
fn activate_kernel<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    #[comptime] curve: Curve,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= y.len() {
        terminate!();
    }
    y[i] = Vector::cast_from(curve_of::<N>(Vector::cast_from(x[i]), curve));
}

#[cube(launch)]
fn activate_backward_kernel<F: Float, N: Size>(
    x: &Array<Vector<F, N>>,
    dy: &Array<Vector<F, N>>,
    dx: &mut Array<Vector<F, N>>,
    #[comptime] curve: Curve,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= dx.len() {
        terminate!();
    }
    let d = Vector::cast_from(dy[i]) * slope_of::<N>(Vector::cast_from(x[i]), curve);
    dx[i] = Vector::cast_from(d);
}

#[cube(launch)]
fn gated_kernel<F: Float, N: Size>(
    gate: &Array<Vector<F, N>>,
    up: &Array<Vector<F, N>>,
    y: &mut Array<Vector<F, N>>,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= y.len() {
        terminate!();
    }
    let g = Vector::<f32, N>::cast_from(gate[i]);
    y[i] = Vector::cast_from(g * sigmoid::<N>(g) * Vector::cast_from(up[i]));
}

#[cube(launch)]
fn gated_backward_kernel<F: Float, N: Size>(
    gate: &Array<Vector<F, N>>,
    up: &Array<Vector<F, N>>,
    dy: &Array<Vector<F, N>>,
    d_gate: &mut Array<Vector<F, N>>,
    d_up: &mut Array<Vector<F, N>>,
    #[define(F)] _dtype: StorageType,
) {
    let i = ABSOLUTE_POS;
    if i >= d_up.len() {
        terminate!();
    }
    let g = Vector::<f32, N>::cast_from(gate[i]);
    let d = Vector::<f32, N>::cast_from(dy[i]);
    let open = sigmoid::<N>(g);
    let slope = open + g * open * (Vector::new(1.0f32) - open);
    d_up[i] = Vector::cast_from(d * g * open);
    d_gate[i] = Vector::cast_from(d * Vector::cast_from(up[i]) * slope);
}

pub fn activate<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    activation: Activation,
    x: Tensor<CubeBackend<R, f32, I, BT>, 2>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let x = array(x);
    let y = empty_like(&x);
    let vector = vector_of(x.meta.num_elements(), x.dtype);
    let (grid, cube) = pointwise(x.meta.num_elements(), vector);
    let (client, dtype) = (x.client.clone(), x.dtype.into());
    let (x, result) = (x.into_array_arg(), y.clone().into_array_arg());
    activate_kernel::launch(&client, grid, cube, vector, x, result, activation.into(), dtype);
    tensor(y)
}

pub fn activate_backward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    activation: Activation,
    x: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    dy: Tensor<CubeBackend<R, f32, I, BT>, 2>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let (x, dy) = (array(x), array(dy));
    let dx = empty_like(&x);
    let vector = vector_of(x.meta.num_elements(), x.dtype);
    let (grid, cube) = pointwise(x.meta.num_elements(), vector);
    let (client, dtype) = (x.client.clone(), x.dtype.into());
    activate_backward_kernel::launch(
        &client,
        grid,
        cube,
        vector,
        x.into_array_arg(),
        dy.into_array_arg(),
        dx.clone().into_array_arg(),
        activation.into(),
        dtype,
    );
    tensor(dx)
}

pub fn gated<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    gate: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    up: Tensor<CubeBackend<R, f32, I, BT>, 2>,
) -> Tensor<CubeBackend<R, f32, I, BT>, 2> {
    let (gate, up) = (array(gate), array(up));
    let y = empty_like(&up);
    let vector = vector_of(up.meta.num_elements(), up.dtype);
    let (grid, cube) = pointwise(up.meta.num_elements(), vector);
    let (client, dtype) = (up.client.clone(), up.dtype.into());
    let (gate, up) = (gate.into_array_arg(), up.into_array_arg());
    gated_kernel::launch(&client, grid, cube, vector, gate, up, y.clone().into_array_arg(), dtype);
    tensor(y)
}

pub fn gated_backward<R: CubeRuntime, I: IntElement, BT: BoolElement>(
    gate: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    up: Tensor<CubeBackend<R, f32, I, BT>, 2>,
    dy: Tensor<CubeBackend<R, f32, I, BT>, 2>,
) -> [Tensor<CubeBackend<R, f32, I, BT>, 2>; 2] {
    let (gate, up, dy) = (array(gate), array(up), array(dy));
    let (d_gate, d_up) = (empty_like(&up), empty_like(&up));
    let vector = vector_of(up.meta.num_elements(), up.dtype);
    let (grid, cube) = pointwise(up.meta.num_elements(), vector);
    let (client, dtype) = (up.client.clone(), up.dtype.into());
    gated_backward_kernel::launch(
        &client,
        grid,
        cube,
        vector,
        gate.into_array_arg(),
        up.into_array_arg(),
        dy.into_array_arg(),
        d_gate.clone().into_array_arg(),
        d_up.clone().into_array_arg(),
        dtype,
    );
    [tensor(d_gate), tensor(d_up)]
}

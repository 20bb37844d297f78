use super::*;
use crate::calibrate::calibration::mean;
use dip_core::{Factors, OperatorShape, presets};

/// A data sheet, and a machine that is slower in every way.
fn machines() -> (ClusterSpec, ClusterSpec) {
    let mut sheet = presets::cluster("h800").unwrap();
    sheet.factors = Factors::default();
    sheet.links.latency_s = 0.0;
    let mut real = sheet.clone();
    real.links.latency_s = 15e-6;
    real.factors = Factors {
        matmul: 1.5,
        attention: 2.2,
        memory: 1.3,
        cached: 0.4,
        // The bytes of a measured residual.
        cache_bytes: 6 << 18,
        norm: 3.0,
        activation: 2.5,
        network: 1.25,
        saturation_flop: 9e9,
        launch_s: 4e-6,
    };
    (sheet, real)
}

/// Times of operators of many sizes on `machine`, each off by up to `noise`.
fn measure(machine: &ClusterSpec, noise: f64) -> Vec<Measurement> {
    let machine = Machine::new(machine, 1);
    let mut operators = Vec::new();
    for i in 0..8u32 {
        let shapes = [
            OperatorShape::Matmul { rows: 512 << (i / 2), inner: 4096, outer: 1024 << (i % 3) },
            OperatorShape::Attention {
                sequences: 1,
                tokens: 1024 << (i / 2),
                heads: 8 << (i % 2),
                head_dim: 128,
            },
            OperatorShape::Residual { rows: 1 << i, width: 1 << 15 },
            OperatorShape::Norm { rows: 64 << i, width: 4096 },
            OperatorShape::Activation { rows: 64 << i, width: 4096 },
            OperatorShape::Message { bytes: 1 << (16 + i) },
        ];
        operators.extend(shapes.map(|shape| Operator::of(&shape, 2)));
    }
    let off = |i: usize| 1.0 + noise * ((i * 7919 % 13) as f64 / 6.0 - 1.0);
    let timed = |(i, operator): (usize, Operator)| Measurement {
        operator,
        seconds: machine.latency(&operator) * off(i),
    };
    operators.into_iter().enumerate().map(timed).collect()
}

#[test]
fn exact_measurements_return_the_factors() {
    let (sheet, real) = machines();
    let fitted = fit(&sheet, &measure(&real, 0.0)).unwrap();
    let (found, truth) = (&fitted.cluster.factors, &real.factors);
    for (name, found, truth) in [
        ("matmul", found.matmul, truth.matmul),
        ("attention", found.attention, truth.attention),
        ("memory", found.memory, truth.memory),
        ("cached", found.cached, truth.cached),
        ("cache", found.cache_bytes as f64, truth.cache_bytes as f64),
        ("norm", found.norm, truth.norm),
        ("activation", found.activation, truth.activation),
        ("network", found.network, truth.network),
        ("saturation", found.saturation_flop, truth.saturation_flop),
        ("launch", found.launch_s, truth.launch_s),
        ("latency", fitted.cluster.links.latency_s, real.links.latency_s),
    ] {
        assert!((found / truth - 1.0).abs() < 1e-6, "{name}: {found} {truth}");
    }
    assert!(fitted.error() < 1e-9);
    // Without the size at the bend, the fitted bend lies at the next size.
    assert!(fitted.leave_one_out() < 0.02, "{}", fitted.leave_one_out());
    assert!(fitted.cluster.validate().is_ok());
}

#[test]
fn noisy_measurements_are_predicted_to_about_their_noise() {
    let (sheet, real) = machines();
    let measured = measure(&real, 0.05);
    let fitted = fit(&sheet, &measured).unwrap();
    assert!(fitted.error() < 0.04, "{}", fitted.error());
    assert!(fitted.leave_one_out() > fitted.error() && fitted.leave_one_out() < 0.06);
    let machine = Machine::new(&sheet, 1);
    let before = mean(measured.iter().map(|m| relative_error(&machine, m)));
    assert!(before > 5.0 * fitted.error(), "{before}");
}

#[test]
fn kinds_without_measurements_keep_their_factors() {
    let (sheet, real) = machines();
    let mut measured = measure(&real, 0.0);
    measured.retain(|m| m.operator.kind == OperatorKind::Elementwise);
    let fitted = fit(&sheet, &measured).unwrap().cluster;
    assert_eq!((fitted.factors.matmul, fitted.factors.network), (1.0, 1.0));
    assert!(fitted.factors.memory > 1.2);
    assert_eq!(fit(&sheet, &[]).unwrap().cluster, sheet);
}

#[test]
fn measurements_without_a_line_are_refused() {
    let (sheet, real) = machines();
    let of = |kind| {
        let mut measured = measure(&real, 0.0);
        measured.retain(|m| m.operator.kind == kind);
        measured
    };
    let one = &of(OperatorKind::Matmul)[..1];
    let error = fit(&sheet, one).unwrap_err();
    assert!(matches!(error, FitError::TooFew { found: 1, needed: 2, .. }), "{error}");
    let mut falling = of(OperatorKind::Elementwise);
    for m in &mut falling {
        m.seconds = Seconds(1.0 / m.operator.memory.0 as f64);
    }
    let error = fit(&sheet, &falling).unwrap_err();
    assert!(matches!(error, FitError::NoGrowth { .. }), "{error}");
    falling[0].seconds = Seconds(f64::NAN);
    let error = fit(&sheet, &falling).unwrap_err();
    assert!(error.to_string().contains("measurement 0"), "{error}");
}

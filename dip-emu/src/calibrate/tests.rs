use super::*;
use dip_core::{Factors, OperatorShape, presets};

fn model() -> ModelSpec {
    presets::model("vlm-s").unwrap()
}

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
        cache_bytes: 1 << 21,
        norm: 3.0,
        activation: 2.5,
        network: 1.25,
        saturation_flop: 9e9,
        launch_s: 4e-6,
    };
    (sheet, real)
}

/// Operators of many sizes as `machine` runs them, each off by up to `noise`.
fn measure(machine: &ClusterSpec, noise: f64) -> Vec<Measurement> {
    let machine = Machine::new(&model(), machine);
    let mut operators = Vec::new();
    for i in 0..8u32 {
        let side = 512 << (i / 2);
        operators.push(Operator::matmul(side, 4096, 1024 << (i % 3), 2));
        operators.push(Operator::attention((1, 1024 << (i / 2)), 8 << (i % 2), 128, 2));
        operators.push(Operator::elementwise(1 << (18 + i)));
        operators.push(Operator::of(&OperatorShape::Norm { rows: 64 << i, width: 4096 }, 2));
        operators.push(Operator::of(&OperatorShape::Activation { rows: 64 << i, width: 4096 }, 2));
        operators.push(Operator::collective(1 << (16 + i)));
    }
    let off = |i: usize| 1.0 + noise * ((i * 7919 % 13) as f64 / 6.0 - 1.0);
    let timed = |(i, operator): (usize, Operator)| Measurement {
        operator,
        seconds: machine.latency(&operator) * off(i),
    };
    operators.into_iter().enumerate().map(timed).collect()
}

#[test]
fn exact_measurements_give_the_factors_back() {
    let (sheet, real) = machines();
    let fitted = fit(&model(), &sheet, &measure(&real, 0.0)).unwrap();
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
    // The bend of the memory lies at a measured size: without that one it lies beside it.
    assert!(fitted.leave_one_out() < 0.02, "{}", fitted.leave_one_out());
    assert!(fitted.cluster.validate().is_ok());
}

#[test]
fn noisy_measurements_are_predicted_to_about_their_noise() {
    let (sheet, real) = machines();
    let measured = measure(&real, 0.05);
    let fitted = fit(&model(), &sheet, &measured).unwrap();
    assert!(fitted.error() < 0.04, "{}", fitted.error());
    assert!(fitted.leave_one_out() > fitted.error() && fitted.leave_one_out() < 0.06);
    let machine = Machine::new(&model(), &sheet);
    let before = mean(measured.iter().map(|m| relative_error(&machine, m)));
    assert!(before > 5.0 * fitted.error(), "{before}");
}

#[test]
fn kinds_that_were_not_measured_keep_their_factors() {
    let (sheet, real) = machines();
    let mut measured = measure(&real, 0.0);
    measured.retain(|m| m.operator.kind == OperatorKind::Elementwise);
    let fitted = fit(&model(), &sheet, &measured).unwrap().cluster;
    assert_eq!((fitted.factors.matmul, fitted.factors.network), (1.0, 1.0));
    assert!(fitted.factors.memory > 1.2);
    assert_eq!(fit(&model(), &sheet, &[]).unwrap().cluster, sheet);
}

#[test]
fn measurements_that_give_no_line_are_refused() {
    let (sheet, real) = machines();
    let of = |kind| {
        let mut measured = measure(&real, 0.0);
        measured.retain(|m| m.operator.kind == kind);
        measured
    };
    let one = &of(OperatorKind::Matmul)[..1];
    let error = fit(&model(), &sheet, one).unwrap_err();
    assert!(matches!(error, FitError::TooFew { found: 1, needed: 2, .. }), "{error}");
    let mut falling = of(OperatorKind::Elementwise);
    for m in &mut falling {
        m.seconds = Seconds(1.0 / m.operator.memory.0 as f64);
    }
    let error = fit(&model(), &sheet, &falling).unwrap_err();
    assert!(matches!(error, FitError::NoGrowth { .. }), "{error}");
    falling[0].seconds = Seconds(f64::NAN);
    let error = fit(&model(), &sheet, &falling).unwrap_err();
    assert!(error.to_string().contains("measurement 0"), "{error}");
}

//! The operators of the encoder of clouds: a layer is one product, without attention.

use std::sync::Arc;

use anyhow::ensure;
use dip::emulate::{ModalityOperators, PartBuilder, Product};
use dip::plan::{BatchMeta, MicrobatchMeta, ModelSpec};
use dip::prelude::*;

use super::{CLOUDS, COORDINATES};
use crate::uses::Uses;

struct CloudOperators(Uses);

impl ModalityOperators for CloudOperators {
    fn start(&self, part: &mut PartBuilder<'_>, _: u64) {
        self.0.add("operators");
        let (rows, inner, outer) = (part.work().tokens, COORDINATES as u64, part.hidden());
        let points = part.data(part.whole(rows, inner));
        part.linear("points", points, points, Product { rows, inner, outer });
    }

    fn layer(&self, part: &mut PartBuilder<'_>) {
        let (rows, width) = (part.work().tokens, part.hidden());
        let x = part.stream();
        part.linear("layer", x, x, Product { rows, inner: width, outer: width });
    }
}

/// Plans a batch at the analytic costs of these operators.
pub fn plan(model: &ModelSpec, microbatch: MicrobatchMeta, uses: &Uses) -> anyhow::Result<()> {
    let cluster = presets::cluster("cpu").expect("the preset is built in");
    let cost =
        AnalyticCost::new(model, &cluster).with_operators(CLOUDS, CloudOperators(uses.clone()));
    let planning = Planning::on_ranks(model, &cluster, Arc::new(cost), 2)?;
    let batch = BatchMeta { iteration: 0, microbatches: vec![microbatch; 2] };
    let plan = planning.plan(&batch, &Dip)?;
    ensure!(check_plan(&plan).is_empty(), "the plan has violations");
    println!("point clouds beside a decoder: planned in {}", plan.predicted.makespan_s);
    Ok(())
}

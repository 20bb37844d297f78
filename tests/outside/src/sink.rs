//! A metric sink: checks that losses are numbers.

use dip::train::{IterationReport, MetricSink, SinkError};

use crate::uses::Uses;

pub struct Count(pub Uses);

impl MetricSink for Count {
    fn iteration(&mut self, report: &IterationReport) -> Result<(), SinkError> {
        self.0.add("metric sink");
        if report.loss.is_finite() { Ok(()) } else { Err("the loss is not a number".into()) }
    }
}

//! The reports of all ranks: all of them on the first process, and the sum of their losses on all.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::backend::Backend;
use dip_core::{Bytes, RankId, Seconds, Span, TaskId};

use super::Pipeline;
use crate::runtime::error::PipelineError;
use crate::runtime::group::GroupError;
use crate::runtime::worker::RankReport;

/// Task, start and end.
const SPAN_BYTES: usize = 4 + 8 + 8;

impl<B: Backend> Pipeline<B> {
    /// The sum of the losses of all ranks, added in their order so that it has the same bits as in one process, and the reports by
    /// number of their ranks: all on the first process, and its own on the others. Times count from `epoch`.
    pub(super) fn share(
        &mut self,
        own: BTreeMap<usize, RankReport>,
        epoch: Instant,
    ) -> Result<(f64, BTreeMap<usize, RankReport>), PipelineError> {
        let group = self.connections.group.clone();
        let number = |id: usize| self.grid.number(self.positions[id]);
        let own: BTreeMap<usize, RankReport> =
            own.into_iter().map(|(id, report)| (number(id), report)).collect();
        if group.size() == 1 {
            return Ok((own.values().map(|report| report.loss_sum).sum(), own));
        }
        // Clocks of machines differ, but all processes end an iteration at once, up to the latency of a message.
        let since = Seconds(epoch.duration_since(self.sync).as_secs_f64());
        let bytes = own.values().flat_map(|report| to_bytes(report, since)).collect();
        let mut all = BTreeMap::new();
        for (process, bytes) in group.gather(bytes)?.iter().enumerate() {
            let mut rest = &bytes[..];
            for position in self.grid.hosted(process) {
                let report = from_bytes(&mut rest, position.rank, since);
                let Some(report) = report else {
                    let (host, what) = (group.host(process), "has sent a broken report".into());
                    return Err(GroupError::Gone { process, host, what }.into());
                };
                all.insert(self.grid.number(position), report);
            }
        }
        let sum: f64 = all.values().map(|report| report.loss_sum).sum();
        let sum = group.broadcast(sum.to_le_bytes().to_vec())?;
        self.sync = Instant::now();
        let sum = sum.first_chunk().map_or(f64::NAN, |bytes| f64::from_le_bytes(*bytes));
        Ok((sum, if group.is_first() { all } else { own }))
    }
}

/// Loss, peak, number of spans, and the spans on the clock that all processes share.
fn to_bytes(report: &RankReport, since: Seconds) -> Vec<u8> {
    let RankReport { spans, loss_sum, peak_activation } = report;
    let mut bytes = Vec::with_capacity(24 + spans.len() * SPAN_BYTES);
    bytes.extend(loss_sum.to_le_bytes());
    bytes.extend(peak_activation.0.to_le_bytes());
    bytes.extend((spans.len() as u64).to_le_bytes());
    for span in spans {
        bytes.extend(span.task.0.to_le_bytes());
        bytes.extend((span.start + since).0.to_le_bytes());
        bytes.extend((span.end + since).0.to_le_bytes());
    }
    bytes
}

fn from_bytes(rest: &mut &[u8], rank: RankId, since: Seconds) -> Option<RankReport> {
    let loss_sum = f64::from_le_bytes(*take(rest)?);
    let peak_activation = Bytes(u64::from_le_bytes(*take(rest)?));
    let count = usize::try_from(u64::from_le_bytes(*take(rest)?)).ok()?;
    let spans = rest.split_off(..count.checked_mul(SPAN_BYTES)?)?;
    let span = |mut bytes: &[u8]| {
        let task = TaskId(u32::from_le_bytes(*take(&mut bytes)?));
        let start = Seconds(f64::from_le_bytes(*take(&mut bytes)?)) - since;
        let end = Seconds(f64::from_le_bytes(*take(&mut bytes)?)) - since;
        Some(Span { task, rank, start, end })
    };
    let spans = spans.chunks_exact(SPAN_BYTES).map(span).collect::<Option<_>>()?;
    Some(RankReport { spans, loss_sum, peak_activation })
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    rest.split_off(..N)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_its_message_and_damage_is_refused() {
        let span = |task| Span {
            task: TaskId(task),
            rank: RankId(3),
            start: Seconds(0.25),
            end: Seconds(f64::from(task)),
        };
        let report =
            RankReport { spans: vec![span(1), span(7)], loss_sum: 1.5, peak_activation: Bytes(9) };
        let bytes = to_bytes(&report, Seconds(2.0));
        let mut rest = &bytes[..];
        // A process whose epoch is half a second later sees earlier times.
        let found = from_bytes(&mut rest, RankId(3), Seconds(2.5)).unwrap();
        assert!(rest.is_empty());
        let earlier = |span: &Span| Span {
            start: span.start - Seconds(0.5),
            end: span.end - Seconds(0.5),
            ..*span
        };
        assert_eq!(found.spans, report.spans.iter().map(earlier).collect::<Vec<_>>());
        assert_eq!((found.loss_sum, found.peak_activation), (1.5, Bytes(9)));
        for length in 0..bytes.len() {
            assert!(from_bytes(&mut &bytes[..length], RankId(3), Seconds(2.0)).is_none());
        }
        let huge = [&bytes[..16], &u64::MAX.to_le_bytes()].concat();
        assert!(from_bytes(&mut &huge[..], RankId(3), Seconds(2.0)).is_none());
    }
}

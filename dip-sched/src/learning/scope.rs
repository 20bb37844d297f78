//! What a correction applies to.

use std::collections::BTreeMap;
use std::sync::Arc;

use dip_core::{RankId, Seconds, SegmentId, Strategy, Task, TaskKind};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::estimate::{Estimate, Pace};

/// Maximum number of scopes in a file.
const MAX_SCOPES: usize = 100_000;

/// The tasks that share a correction. Absent fields stand for all tasks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<TaskKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<RankId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentId>,
    /// Twice the logarithm to base 2 of the seconds before corrections, rounded down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i32>,
}

/// Where a task runs.
pub struct Place<'a> {
    module: &'a Arc<str>,
    rank: RankId,
    segment: SegmentId,
}

/// What a task does.
pub struct Work<'a> {
    kind: TaskKind,
    strategy: &'a Strategy,
    /// Its time before corrections.
    pub base_s: Seconds,
}

/// How fine a scope is. A correction is the product over all levels, each of which learns what those before it leave unexplained.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    /// All tasks: the machine.
    All,
    /// A module, a kind of task and a strategy.
    Work,
    /// A rank.
    Rank,
    /// The same as `Work` in one chunk.
    Chunk,
    /// The same, for tasks that take about as long.
    Size,
}

impl<'a> Place<'a> {
    pub fn of(task: &'a Task) -> Self {
        Self { module: &task.module, rank: task.rank, segment: task.segment }
    }
}

impl<'a> Work<'a> {
    pub fn new(kind: TaskKind, strategy: &'a Strategy, base_s: Seconds) -> Self {
        Self { kind, strategy, base_s }
    }
}

impl Level {
    pub const ALL: [Self; 5] = [Self::All, Self::Work, Self::Rank, Self::Chunk, Self::Size];

    pub fn scope(self, place: &Place<'_>, work: &Work<'_>) -> Scope {
        let of_work = || Scope {
            module: Some(place.module.clone()),
            kind: Some(work.kind),
            // Weight gradients do not depend on the strategy.
            strategy: (work.kind != TaskKind::Weight).then(|| work.strategy.clone()),
            ..Scope::default()
        };
        let of_chunk =
            || Scope { rank: Some(place.rank), segment: Some(place.segment), ..of_work() };
        match self {
            Self::All => Scope::default(),
            Self::Work => of_work(),
            Self::Rank => Scope { rank: Some(place.rank), ..Scope::default() },
            Self::Chunk => of_chunk(),
            Self::Size => Scope { size: Some(size(work.base_s)), ..of_chunk() },
        }
    }

    /// True for the level of all tasks.
    pub fn is_all(self) -> bool {
        matches!(self, Self::All)
    }

    /// True if a scope is of this level.
    pub fn has(self, scope: &Scope) -> bool {
        let Scope { kind, rank, size, .. } = scope;
        match self {
            Self::All => (kind, rank) == (&None, &None),
            Self::Work => kind.is_some() && rank.is_none(),
            Self::Rank => kind.is_none() && rank.is_some(),
            Self::Chunk => kind.is_some() && rank.is_some() && size.is_none(),
            Self::Size => size.is_some(),
        }
    }

    /// The coarser a scope, the faster it learns. Fine scopes count some iterations without an error before their first.
    pub fn pace(self) -> Pace {
        let (least_gain, prior) = match self {
            Self::All => (0.1, 0.0),
            Self::Work => (0.05, 1.0),
            Self::Rank => (0.05, 2.0),
            Self::Chunk => (0.03, 3.0),
            Self::Size => (0.03, 6.0),
        };
        Pace { least_gain, prior }
    }
}

fn size(base_s: Seconds) -> i32 {
    (2.0 * base_s.0.max(1e-12).log2()).floor() as i32
}

/// Estimates by scope as a list, because keys of JSON objects are texts.
pub mod as_list {
    use super::*;

    #[derive(Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Entry {
        scope: Scope,
        estimate: Estimate,
    }

    pub fn serialize<S: Serializer>(
        map: &BTreeMap<Scope, Estimate>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(
            map.iter().map(|(scope, &estimate)| Entry { scope: scope.clone(), estimate }),
        )
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<Scope, Estimate>, D::Error> {
        let entries = Vec::<Entry>::deserialize(from)?;
        if entries.len() > MAX_SCOPES {
            let error = format!("{} scopes, but at most {MAX_SCOPES} are allowed", entries.len());
            return Err(serde::de::Error::custom(error));
        }
        Ok(entries.into_iter().map(|entry| (entry.scope, entry.estimate)).collect())
    }
}

//! Reads an order from CSV.

use std::collections::HashMap;

use super::stages::{Cell, CellAction, StageTable};
use super::{CsvError, CsvOrder};
use crate::plan::graph::TaskGraph;
use crate::plan::timeline::{Timeline, TimelineError};
use crate::plan::violation::MAX_VIOLATIONS;
use crate::spec::{RankId, TaskId};

/// Number of actions that a message names; the rest are counted.
const SHOWN: usize = 8;

/// PyTorch's actions that compute nothing.
const COMMUNICATION: [&str; 10] = [
    "SEND_F",
    "RECV_F",
    "SEND_B",
    "RECV_B",
    "WAIT_SEND_F",
    "WAIT_SEND_B",
    "UNSHARD",
    "RESHARD",
    "REDUCE_GRAD",
    "WAIT_REDUCE_GRAD",
];

/// The place of a cell. Row and column are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CellPlace {
    row: usize,
    column: usize,
}

/// Reads an order of the tasks of `graph`. The graph must pass [`check_graph`](crate::check_graph).
///
/// # Errors
/// Every [`CsvError`] of the text: cells that are not an action, name a missing stage or microbatch, are on the wrong rank or
/// repeat an earlier cell; missing actions; and orders that deadlock.
pub fn order_from_csv(
    csv: &CsvOrder,
    graph: &TaskGraph,
) -> Result<Vec<Vec<TaskId>>, Vec<CsvError>> {
    let stages = StageTable::of(graph).and_then(|stages| match csv.microbatches.as_slice() {
        [] => Ok(stages),
        microbatches => stages.renumber(microbatches),
    });
    let stages = stages.map_err(|error| vec![error])?;
    let mut reader = OrderReader { graph, stages, places: HashMap::new(), errors: Vec::new() };
    let order = reader.rows(&csv.text);
    if reader.errors.is_empty() {
        reader.check_missing();
    }
    if reader.errors.is_empty() {
        reader.check_pairs();
    }
    if reader.errors.is_empty() {
        reader.check_deadlock(&order);
    }
    if reader.errors.is_empty() { Ok(order) } else { Err(reader.errors) }
}

struct OrderReader<'a> {
    graph: &'a TaskGraph,
    stages: StageTable,
    places: HashMap<TaskId, CellPlace>,
    errors: Vec<CsvError>,
}

impl OrderReader<'_> {
    fn rows(&mut self, text: &str) -> Vec<Vec<TaskId>> {
        let ranks = self.graph.ranks as usize;
        let mut order = vec![Vec::new(); ranks];
        let mut rows = 0;
        for (r, line) in text.lines().enumerate() {
            rows += 1;
            let Some(list) = order.get_mut(r) else {
                if !line.trim().is_empty() {
                    let problem = format!("there are only {ranks} ranks; remove the row");
                    self.errors.push(CsvError::Row { row: r + 1, problem });
                }
                continue;
            };
            for (c, text) in line.split(',').enumerate() {
                let text = text.trim();
                if self.errors.len() >= MAX_VIOLATIONS {
                    return order;
                }
                if !text.is_empty() {
                    let place = CellPlace { row: r + 1, column: c + 1 };
                    match self.tasks(text, place) {
                        Ok(tasks) => list.extend(tasks),
                        Err(problem) => self.report(place, text, problem),
                    }
                }
            }
        }
        if rows < ranks && self.errors.is_empty() {
            let problem = format!(
                "the text ends here, but there are {ranks} ranks; add a row for each, empty where a rank does nothing"
            );
            self.errors.push(CsvError::Row { row: rows + 1, problem });
        }
        order
    }

    /// The tasks of the text between two commas, in the order in which they run.
    fn tasks(&mut self, text: &str, place: CellPlace) -> Result<Vec<TaskId>, String> {
        let parts = match text.strip_suffix("OVERLAP_F_B") {
            Some(parts) => parts
                .strip_prefix('(')
                .and_then(|parts| parts.strip_suffix(')'))
                .ok_or("is not of the form `(1F1;0B0)OVERLAP_F_B`; correct it")?,
            None => text,
        };
        let mut tasks = Vec::new();
        for part in parts.split(';').map(str::trim).filter(|part| !is_communication(part)) {
            let cell = parse(part)?;
            for half in self.halves(cell).unwrap_or_else(|| vec![cell]) {
                tasks.push(self.task(half, place)?);
            }
        }
        Ok(tasks)
    }

    /// Input and weight gradients of a full backward, if the graph splits it.
    fn halves(&self, cell: Cell) -> Option<Vec<Cell>> {
        let halves = [CellAction::InputBackward, CellAction::Weight];
        let halves = halves.map(|action| Cell { action, ..cell });
        let split = halves.iter().all(|half| self.stages.tasks.contains_key(half));
        (cell.action == CellAction::FullBackward && split).then(|| halves.to_vec())
    }

    /// Returns the task of a cell. Checks that it is on its own rank and not listed before.
    fn task(&mut self, cell: Cell, place: CellPlace) -> Result<TaskId, String> {
        let stages = self.stages.list.len();
        let Some((rank, name)) = self.stages.list.get(cell.stage as usize) else {
            return Err(format!("names stage {}, but there are {stages} stages", cell.stage));
        };
        let Some(&task) = self.stages.tasks.get(&cell) else {
            return Err(self.absent(cell, name));
        };
        if rank.index() + 1 != place.row {
            return Err(format!(
                "belongs to rank {rank}, which holds stage {} ({name}); move it to row {}",
                cell.stage,
                rank.index() + 1
            ));
        }
        if let Some(CellPlace { row, column }) = self.places.get(&task) {
            return Err(format!("is already in row {row}, column {column}; remove one"));
        }
        self.places.insert(task, place);
        Ok(task)
    }

    /// Explains why no task has this cell, although its stage exists.
    fn absent(&self, cell: Cell, name: &str) -> String {
        let Cell { stage, microbatch, .. } = cell;
        let others = CellAction::ALL.map(|action| Cell { action, ..cell });
        let others: Vec<_> = others.iter().filter(|c| self.stages.tasks.contains_key(c)).collect();
        if others.is_empty() {
            return format!(
                "names microbatch {microbatch}, which does not use stage {stage} ({name}); remove it"
            );
        }
        let others: Vec<_> = others.iter().map(|c| format!("`{c}`")).collect();
        format!(
            "is not an action of stage {stage} ({name}) for microbatch {microbatch}; it has {}",
            others.join(", ")
        )
    }

    fn check_missing(&mut self) {
        let mut missing: Vec<Vec<String>> = vec![Vec::new(); self.graph.ranks as usize];
        for task in self.graph.tasks.iter().filter(|t| !self.places.contains_key(&t.id)) {
            missing[task.rank.index()].push(self.stages.text(task.id));
        }
        for (rank, cells) in missing.iter().enumerate().filter(|(_, cells)| !cells.is_empty()) {
            let more = if cells.len() > SHOWN { ", ..." } else { "" };
            let shown = cells[..cells.len().min(SHOWN)].join("`, `");
            let problem = format!(
                "{} missing actions: `{shown}`{more}; add them in their order",
                cells.len()
            );
            self.errors.push(CsvError::Row { row: rank + 1, problem });
        }
    }

    /// Checks that each backward follows its forward and each weight task its backward.
    fn check_pairs(&mut self) {
        for pair in self.graph.pairs() {
            let steps = [(Some(pair.forward), pair.backward), (pair.backward, pair.weight)];
            for (before, after) in steps.into_iter().filter_map(|(b, a)| Some((b?, a?))) {
                let (first, second) = (self.places[&before], self.places[&after]);
                if second.column < first.column {
                    let before = self.stages.text(before);
                    let problem = format!(
                        "is before `{before}` in column {}, whose result it needs; swap them",
                        first.column
                    );
                    self.report(second, &self.stages.text(after), problem);
                }
            }
        }
    }

    fn check_deadlock(&mut self, order: &[Vec<TaskId>]) {
        let stuck = match Timeline::evaluate(self.graph, order) {
            Ok(_) => return,
            Err(TimelineError::Deadlock { stuck }) => stuck,
            Err(other) => {
                return self.errors.push(CsvError::Graph { reason: other.to_string() });
            }
        };
        let waits_from: HashMap<RankId, CellPlace> =
            stuck.iter().map(|&(rank, task)| (rank, self.places[&task])).collect();
        for (_, task) in stuck {
            let unmet = self.graph.task(task).deps.iter().map(|d| d.task).find(|dep| {
                let from = waits_from.get(&self.graph.task(*dep).rank);
                from.is_some_and(|from| self.places[dep].column >= from.column)
            });
            let problem = match unmet {
                Some(dep) => format!(
                    "waits forever: it needs `{}` in row {}, column {}, which also waits; reorder one of them",
                    self.stages.text(dep),
                    self.places[&dep].row,
                    self.places[&dep].column
                ),
                None => "waits forever; reorder the rows".into(),
            };
            self.report(self.places[&task], &self.stages.text(task), problem);
        }
    }

    fn report(&mut self, CellPlace { row, column }: CellPlace, cell: &str, problem: String) {
        let cell = cell.chars().take(60).collect();
        self.errors.push(CsvError::Cell { row, column, cell, problem });
    }
}

/// True for actions without computation, such as `0SEND_F1` and `2REDUCE_GRAD`.
fn is_communication(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let name = rest.trim_end_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len() && COMMUNICATION.contains(&name)
}

/// Reads a cell such as `0F1`.
fn parse(text: &str) -> Result<Cell, String> {
    let form = "is not of the form `0F1`: stage, then F, B, I or W, then microbatch; correct it";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (stage, rest) = text.split_at(digits);
    let mut rest = rest.chars();
    let letter = rest.next();
    let action = CellAction::ALL.into_iter().find(|a| Some(a.letter()) == letter).ok_or(form)?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u32>().ok().filter(|_| plain).ok_or(form)
    };
    Ok(Cell { stage: number(stage)?, action, microbatch: number(rest.as_str())? })
}

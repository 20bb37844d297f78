//! A model chunk that only runs forwards: evaluation, captions and samples. It keeps no activations.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::backend::Backend;
use dip_core::{ModuleId, PairKey, Received, Stage, StageCall, StageError, TaskId};

use super::place::{ModulePlace, inputs_in_order};
use super::{ChunkStage, Payload, protocol};
use crate::batch::Batch;
use crate::model::{AnyChunk, ChunkMemory, Slice};
use crate::params::{self, MapParameters, Naming, ParameterMap, ReadError};

/// Microbatches to run forwards, and what the end of the model gives for them.
#[derive(Debug, Clone, PartialEq)]
pub struct ForwardWork {
    /// The microbatches, each whole.
    pub batch: Batch,
    /// What the end gives for each microbatch.
    pub goals: Vec<ForwardGoal>,
    /// The module that continues sequences: the last of the model.
    pub continues: ModuleId,
}

/// What the end of the model gives for a microbatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardGoal {
    /// The sum of the losses of its trained tokens, in f32.
    Loss,
    /// The predictions of the tokens `rows`, or of all: scores of the next token, or velocities.
    Predictions {
        /// Tokens of the microbatch.
        rows: Option<Vec<usize>>,
    },
    /// The same for the next part of sequences. The last module of the model remembers their earlier parts, and only it runs the
    /// later ones.
    Continue {
        /// Number of the microbatch among those that are remembered.
        number: usize,
        /// True for the first part. What was remembered under the number is forgotten.
        begins: bool,
        /// Tokens of the microbatch.
        rows: Option<Vec<usize>>,
    },
}

impl ForwardGoal {
    fn rows(&self) -> Option<&[usize]> {
        match self {
            Self::Loss => None,
            Self::Predictions { rows } | Self::Continue { rows, .. } => rows.as_deref(),
        }
    }
}

/// One model chunk that only runs forwards, in f32 whatever the precision of training.
///
/// It shares the weights of the [`ChunkStage`] that it comes from.
pub struct ForwardStage<B: Backend> {
    chunk: Box<dyn AnyChunk<B>>,
    naming: Naming,
    place: ModulePlace<B>,
    work: Option<Arc<ForwardWork>>,
    answers: Vec<(TaskId, Tensor<B, 2>)>,
    /// Of the sequences that are continued, by their number.
    memories: HashMap<usize, ChunkMemory<B>>,
}

impl<B: Backend> ChunkStage<B> {
    /// This chunk for forwards alone, with its present weights.
    pub fn for_forwards(&self) -> ForwardStage<B> {
        ForwardStage {
            chunk: self.chunk.clone(),
            naming: self.naming.clone(),
            place: self.place.clone(),
            work: None,
            answers: Vec::new(),
            memories: HashMap::new(),
        }
    }
}

impl<B: Backend> ForwardStage<B> {
    /// Starts to run `work`.
    pub fn begin(&mut self, work: Arc<ForwardWork>) {
        self.work = Some(work);
        self.answers.clear();
    }

    /// Ends the work: the values of every end on this chunk, by the task that made them.
    ///
    /// # Errors
    /// [`ReadError`] if the device has failed.
    pub fn finish(&mut self) -> Result<Vec<(TaskId, Vec<f32>)>, ReadError> {
        self.work = None;
        let read = |(task, answer): (TaskId, Tensor<B, 2>)| {
            let data = answer.try_into_data().map_err(ReadError::new)?;
            Ok((task, data.iter::<f32>().collect()))
        };
        std::mem::take(&mut self.answers).into_iter().map(read).collect()
    }

    fn output(
        &mut self,
        call: &StageCall,
        work: &ForwardWork,
        (from, inputs): (Vec<PairKey>, Vec<Tensor<B, 2>>),
    ) -> Result<Tensor<B, 2>, StageError> {
        let on = self.place.slice_of(&work.batch, call, &from)?;
        let missing = || protocol(call, "has no goal");
        let goal = work.goals.get(call.pair.microbatch.index()).ok_or_else(missing)?;
        let &ForwardGoal::Continue { number, begins, .. } = goal else {
            return self.of_whole(call, goal, inputs, &on);
        };
        if self.place.module != work.continues {
            return self.of_whole(call, goal, inputs, &on);
        }
        let mut memory = match (begins, self.memories.remove(&number)) {
            (true, _) => ChunkMemory::default(),
            (false, Some(memory)) => memory,
            (false, None) => return Err(protocol(call, "continues a sequence that never began")),
        };
        let output = match self.chunk.extend(inputs.clone(), &on, goal.rows(), &mut memory) {
            Some(output) => output,
            None if begins => self.of_whole(call, goal, inputs, &on)?,
            None => return Err(self.unsupported(call, "a continuation")),
        };
        self.memories.insert(number, memory);
        Ok(output)
    }

    /// The output for a microbatch of which nothing is known before.
    fn of_whole(
        &self,
        call: &StageCall,
        goal: &ForwardGoal,
        inputs: Vec<Tensor<B, 2>>,
        on: &Slice<'_>,
    ) -> Result<Tensor<B, 2>, StageError> {
        match goal {
            _ if !self.chunk.has_loss() => Ok(self.chunk.forward(inputs, on)),
            ForwardGoal::Loss => Ok(self.chunk.evaluate(inputs, on)),
            ForwardGoal::Predictions { .. } | ForwardGoal::Continue { .. } => {
                let predicted = self.chunk.predict(inputs, on, goal.rows());
                predicted.ok_or_else(|| self.unsupported(call, "a prediction"))
            }
        }
    }

    fn unsupported(&self, call: &StageCall, what: &str) -> StageError {
        let what = format!("{what} by module {:?}", self.naming.module);
        StageError::Unsupported { task: call.task, what }
    }
}

impl<B: Backend> MapParameters<B> for ForwardStage<B> {
    fn map_parameters<P: ParameterMap<B>>(&mut self, map: &mut P) {
        params::map_parameters(&mut *self.chunk, &self.naming, None, map);
    }
}

impl<B: Backend> Stage for ForwardStage<B> {
    type Payload = Payload<B>;

    fn forward(
        &mut self,
        call: &StageCall,
        inputs: Vec<Received<Payload<B>>>,
    ) -> Result<Vec<Payload<B>>, StageError> {
        let work = self.work.clone().ok_or_else(|| protocol(call, "runs before its work"))?;
        let output = self.output(call, &work, inputs_in_order(inputs))?;
        if self.chunk.has_loss() {
            self.answers.push((call.task, output));
            return Ok(Vec::new());
        }
        Ok(call.consumers.iter().map(|_| Payload(vec![output.clone()])).collect())
    }

    fn backward(
        &mut self,
        call: &StageCall,
        _: Vec<Received<Payload<B>>>,
    ) -> Result<Vec<Payload<B>>, StageError> {
        Err(StageError::Unsupported { task: call.task, what: "a backward".into() })
    }
}

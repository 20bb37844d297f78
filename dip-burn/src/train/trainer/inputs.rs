//! What this process reads of a batch: only ranks with the first layers of an encoder see its pictures or hear its sounds, and tell the
//! others which of them are broken.

use burn::tensor::backend::Backend;

use super::Trainer;
use crate::batch::Microbatch;
use crate::data::Inputs;
use crate::runtime::Position;
use crate::train::data::{BatchContent, MutedDocument};
use crate::train::error::TrainError;

impl<B: Backend> Trainer<B> {
    /// What the ranks of a replica in this process read.
    pub(super) fn inputs_of(&self, replica: usize) -> Inputs {
        let (grid, own) = (self.pipeline.grid(), self.group.index());
        Inputs::of_ranks(&self.model, &self.partition, |rank| {
            grid.host(Position { replica, rank }) == own
        })
    }

    /// Removes the loss of documents whose pictures are broken, which only the processes that decode them know. `assigned` has the
    /// numbers of the microbatches of each replica with ranks in this process.
    pub(super) fn share_muted(
        &self,
        content: &mut BatchContent,
        assigned: &[Vec<usize>],
    ) -> Result<(), TrainError> {
        if self.group.size() == 1 {
            return Ok(());
        }
        let numbers: Vec<usize> = assigned.iter().flatten().copied().collect();
        let place = |muted: &MutedDocument| Some((*numbers.get(muted.microbatch)?, muted.document));
        let own: Vec<(usize, u32)> = content.muted.iter().filter_map(place).collect();
        let own = serde_json::to_vec(&own).expect("plain data has a JSON form");
        for (process, message) in self.group.all_gather(own)?.iter().enumerate() {
            let muted: Vec<(usize, u32)> = serde_json::from_slice(message).map_err(|error| {
                let what =
                    format!("has sent a list of broken pictures that cannot be read: {error}");
                self.refused(process, what)
            })?;
            for (number, document) in muted {
                let found = numbers.iter().position(|&own| own == number);
                if let Some(microbatch) = found.and_then(|i| content.microbatches.get_mut(i)) {
                    microbatch.mute(document);
                }
            }
        }
        content.trained_tokens = content.microbatches.iter().map(Microbatch::trained_tokens).sum();
        Ok(())
    }
}

//! An evaluation: the mean loss of a text that does not describe its pictures.

use dip::train::{
    Evaluation, EvaluationConfig, EvaluationError, Evaluator, Inference, Microbatch, text_positions,
};

use crate::uses::Uses;

pub struct Brightness(pub Uses);

impl Evaluator for Brightness {
    fn evaluate(
        &self,
        model: &mut dyn Inference,
        _: &EvaluationConfig,
        _: bool,
    ) -> Result<Evaluation, EvaluationError> {
        self.0.add("evaluator");
        let text = b"bright";
        let length = text.len() - 1;
        let microbatch = Microbatch {
            tokens: text[..length].iter().map(|&byte| u32::from(byte)).collect(),
            targets: text[1..].iter().map(|&byte| u32::from(byte)).collect(),
            documents: vec![0; length],
            positions: text_positions(length).collect(),
            loss_mask: vec![true; length],
            ..Microbatch::default()
        };
        Ok(Evaluation::new("loss of a word", model.loss(&[microbatch])?))
    }
}

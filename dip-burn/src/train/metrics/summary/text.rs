//! A summary as text and as Markdown.

use super::{LoadFigures, RunSummary};
use crate::data::DataReport;

impl RunSummary {
    /// Labels and values, one for each line of a summary.
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let mut rows = vec![
            ("iterations", format!("{} in {}", self.iterations, self.seconds)),
            ("throughput", self.throughput()),
        ];
        rows.extend(self.losses.map(|[first, last]| ("loss", format!("{first:.3} to {last:.3}"))));
        rows.extend(self.held_out().map(|text| ("held-out", text)));
        rows.push((
            "stages",
            match &self.stages {
                None => "not timed; on a GPU, pipeline.timed_every times them".into(),
                Some(stages) => format!(
                    "{}, predicted {} (mean error {}{}), bubble {}, runtime overhead {}",
                    stages.makespan_s,
                    stages.predicted_s,
                    percent(stages.prediction_error),
                    stages.recent_error.map_or_else(String::new, |error| format!(
                        ", {} in the last 50",
                        percent(error)
                    )),
                    percent(stages.bubble_ratio),
                    percent(stages.overhead)
                ),
            },
        ));
        rows.push(("planner", self.planner()));
        rows.push(("memory", format!("at most {} on a rank", self.peak_bytes)));
        rows.extend(self.load.map(|load| ("pictures", load.to_string())));
        rows.push(("samples", samples(self.skipped, &self.data)));
        rows
    }

    fn throughput(&self) -> String {
        let mfu = self.mfu.map_or_else(String::new, |mfu| format!(", MFU {:.1} %", 100.0 * mfu));
        format!("{:.0} tokens/s, {} an iteration{mfu}", self.tokens_per_s, self.iteration_s)
    }

    fn planner(&self) -> String {
        let stall = format!("{:.2} % of the time waiting for plans", 100.0 * self.stall_ratio);
        match self.fallbacks {
            0 => stall,
            1 => format!("{stall}, default schedule once"),
            n => format!("{stall}, default schedule {n} times"),
        }
    }

    /// The held-out loss of the last evaluation beside the first.
    fn held_out(&self) -> Option<String> {
        let last = self.evaluations.last()?;
        let end = format!("{} {:.3} after iteration {}", last.what, last.loss, last.iteration);
        let first = self.evaluations.first().filter(|first| first.iteration < last.iteration);
        Some(match first {
            Some(first) => format!("{end}, {:.3} after iteration {}", first.loss, first.iteration),
            None => end,
        })
    }

    /// The text of the terminal, a line for each row.
    pub fn to_text(&self) -> String {
        self.rows().iter().map(|(label, value)| format!("{label:<12} {value}\n")).collect()
    }

    /// `summary.md`: the rows, and the held-out losses.
    pub fn to_markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let mut out = format!(
            "# {}\n\nModel {}, {} iterations completed.\n\n| | |\n|---|---|\n",
            self.name, self.model, self.iteration
        );
        for (label, value) in self.rows() {
            out.push_str(&format!("| {label} | {} |\n", cell(&value)));
        }
        if !self.evaluations.is_empty() {
            out.push_str("\n| after iteration | held-out | value |\n|---|---|---|\n");
        }
        for evaluation in &self.evaluations {
            let (iteration, what) = (evaluation.iteration, cell(evaluation.what));
            out.push_str(&format!("| {iteration} | {what} | {:.4} |\n", evaluation.loss));
        }
        out
    }
}

/// What is remarkable about the samples.
fn samples(skipped: u64, data: &DataReport) -> String {
    let mut text = format!("{skipped} skipped");
    if data.skipped.total() > 0 {
        text.push_str(&format!(" ({})", data.skips()));
    }
    if data.cut_documents > 0 {
        let (documents, tokens) = (data.cut_documents, data.cut_tokens);
        text.push_str(&format!("; {documents} documents cut by {tokens} tokens in all"));
    }
    if data.broken_pictures > 0 {
        text.push_str(&format!("; {} pictures could not be decoded", data.broken_pictures));
    }
    text
}

impl std::fmt::Display for LoadFigures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { patches, deviation, least, most, padding, patches_per_s } = self;
        write!(
            f,
            "{patches:.0} patches a microbatch (deviation {:.1} %, {least} to {most}), padding {:.1} %",
            100.0 * deviation,
            100.0 * padding
        )?;
        match *patches_per_s > 0.0 {
            true => write!(f, ", {patches_per_s:.0} patches/s"),
            false => Ok(()),
        }
    }
}

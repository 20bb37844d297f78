//! What `dip init` found and proposes, as a table.

use dip::plan::{Flops, ModelSpec, Seconds};
use dip::train::{DataSurvey, Fit, Outlook, Proposal, RunKind};

/// One line for each thing that was found or proposed.
pub fn of(proposal: &Proposal, spec: &ModelSpec, outlook: &Outlook) -> String {
    let mut rows = vec![("model", model(spec))];
    rows.extend(data(&proposal.survey));
    rows.extend(memory(proposal));
    rows.extend(run(proposal));
    rows.push(("an epoch", epoch(proposal, outlook)));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, text)| format!("{name:width$}  {text}\n")).collect()
}

fn model(spec: &ModelSpec) -> String {
    let of = |m: usize| spec.parameters(m.into()).total();
    let modules = spec.modules.iter().enumerate();
    let modules: Vec<_> =
        modules.map(|(m, module)| format!("{} {}", module.name, short(of(m) as f64))).collect();
    let all: u64 = (0..spec.modules.len()).map(of).sum();
    format!("{}: {} parameters ({})", spec.name, short(all as f64), modules.join(", "))
}

fn data(survey: &DataSurvey) -> Vec<(&'static str, String)> {
    let usable = survey.documents.len();
    let read = usable as u64 + survey.skipped.total();
    let samples = match survey.samples {
        None => "drawn".into(),
        Some(count) => {
            let about = if count.is_exact { "" } else { "about " };
            format!("{about}{} samples", grouped(count.samples))
        }
    };
    let mut rows = vec![("data", format!("{samples}; {usable} of {read} that were read are used"))];
    if survey.skipped.total() > 0 {
        let first = survey.first_skipped.iter().map(|s| s.name.as_str()).filter(|n| !n.is_empty());
        let first: Vec<_> = first.take(3).collect();
        let names =
            if first.is_empty() { String::new() } else { format!("; first {}", first.join(", ")) };
        rows.push(("skipped", format!("{}{names}", survey.skipped)));
    }
    let documents = &survey.documents;
    let mean =
        |figure: &dyn Fn(usize) -> f64| (0..usable).map(figure).sum::<f64>() / usable.max(1) as f64;
    let tokens = mean(&|i| documents[i].tokens as f64);
    let text = mean(&|i| documents[i].text_tokens as f64);
    let longest = documents.iter().map(|d| d.tokens).max().unwrap_or(0);
    let frames = mean(&|i| f64::from(documents[i].frames));
    let mut parts = Vec::new();
    if frames > 0.0 {
        parts.push(format!("{frames:.1} latent frames of {:.0} tokens", tokens / frames));
    }
    let images = mean(&|i| documents[i].images.len() as f64);
    if images > 0.0 {
        let patches = mean(&|i| documents[i].images.iter().map(|s| f64::from(s.patches)).sum());
        let videos = mean(&|i| f64::from(documents[i].videos));
        let of =
            if videos > 0.0 { format!(" ({videos:.1} of them videos)") } else { String::new() };
        parts.push(format!("{images:.1} pictures{of} of {:.0} patches", patches / images));
    }
    let sounds = mean(&|i| documents[i].sound_seconds.len() as f64);
    if sounds > 0.0 {
        let seconds = mean(&|i| documents[i].sound_seconds.iter().sum());
        parts.push(format!("{sounds:.1} sounds of {:.1} s", seconds / sounds));
    }
    parts.push(format!("{text:.0} text tokens"));
    let name = if frames > 0.0 { "a clip" } else { "a document" };
    rows.push((
        name,
        format!("{}; {tokens:.0} tokens in all, at most {}", parts.join(", "), grouped(longest)),
    ));
    let trained = mean(&|i| documents[i].trained_tokens as f64);
    let talks = documents.iter().filter(|d| d.is_conversation).count();
    if frames == 0.0 {
        let share = 100.0 * trained / tokens.max(1.0);
        let kind = if talks > 0 { "what the assistant says" } else { "all text" };
        rows.push(("with a loss", format!("{share:.0} % of the tokens: {kind}")));
    }
    rows
}

fn memory(proposal: &Proposal) -> Vec<(&'static str, String)> {
    let memory = &proposal.memory;
    let how = match proposal.fit {
        Fit::Kept => String::new(),
        Fit::Recomputed | Fit::No => {
            format!("; recomputed down to {}", memory.least_activations)
        }
    };
    let parts = format!(
        "{} = weights {} + gradients {} + optimiser {} + activations {}{how}",
        memory.total(),
        memory.weights,
        memory.gradients,
        memory.optimizer,
        memory.activations
    );
    vec![("memory of a rank", parts)]
}

fn run(proposal: &Proposal) -> Vec<(&'static str, String)> {
    let config = &proposal.config;
    let trained = match proposal.kind {
        RunKind::Adapters => {
            format!("{}, because all weights do not fit the memory", proposal.kind.name())
        }
        kind => kind.name().to_owned(),
    };
    let each = proposal.documents_per_sequence;
    let microbatches = config.data.microbatches.unwrap_or(proposal.model.microbatches);
    let what = if proposal.model.video().is_some() { "clips" } else { "documents" };
    let sequence = match proposal.model.video() {
        Some(_) => format!("{microbatches} microbatches of {each:.0} {what}"),
        None => format!(
            "{microbatches} sequences of {} tokens, {each:.1} {what} each",
            grouped(proposal.model.sequence_tokens.into())
        ),
    };
    let rate = config.optimizer.learning_rate;
    vec![
        ("trains", trained),
        ("an iteration", format!("{sequence}, on {} ranks", config.pipeline.ranks)),
        (
            "the run",
            format!(
                "{} iterations, learning rate {rate:e} after {} of warm-up",
                grouped(config.iterations),
                config.optimizer.warmup_iterations
            ),
        ),
    ]
}

fn epoch(proposal: &Proposal, outlook: &Outlook) -> String {
    let samples = proposal.survey.usable_samples();
    let iterations = samples.map_or(1.0, |samples| samples / outlook.documents.max(1e-9));
    let (tokens, flops) = (short(outlook.tokens * iterations), Flops(outlook.flops.0 * iterations));
    let of = match samples {
        Some(_) => format!("{iterations:.1} iterations, "),
        None => "drawn data has none; an iteration: ".into(),
    };
    match outlook.seconds {
        None => format!("{of}{tokens} tokens, {flops}; not measured"),
        Some(seconds) => {
            let (all, each) = (duration(Seconds(seconds.0 * iterations)), seconds);
            format!("{of}{tokens} tokens, {flops}: {all}, at {each} an iteration")
        }
    }
}

/// A number with a unit of thousands.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.2} B", v / 1e9),
        v if v >= 1e6 => format!("{:.1} M", v / 1e6),
        v if v >= 1e4 => format!("{:.0} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

/// A whole number in groups of three digits.
fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// A time in days, hours and minutes.
fn duration(time: Seconds) -> String {
    let minutes = (time.0 / 60.0).round() as u64;
    match minutes {
        0 | 1 => time.to_string(),
        m if m < 60 => format!("{m} min"),
        m if m < 48 * 60 => format!("{} h {} min", m / 60, m % 60),
        m => format!("{} days {} h", m / 1440, m % 1440 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let all = [short(7.62e9), short(41_600.0), short(3.0), grouped(1_234_567), grouped(89)];
        assert_eq!(all, ["7.62 B", "42 k", "3", "1,234,567", "89"]);
        let times = [30.0, 600.0, 7_500.0, 300_000.0].map(|s| duration(Seconds(s)));
        assert_eq!(times, ["30.00 s", "10 min", "2 h 5 min", "3 days 11 h"]);
    }
}

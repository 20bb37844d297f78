//! Rotary positions of decoders.

use super::Family;
use crate::hf::fields::Fields;
use crate::spec::{Rope, RopeScaling, SpecError, YarnScaling};

/// Reads rotary positions from `rope_parameters`, or from `rope_theta` and `rope_scaling` before `transformers` 5. The decoder has
/// `positions` positions.
pub(super) fn read(config: &Fields<'_>, family: Family, positions: u32) -> Result<Rope, SpecError> {
    let table = match config.child("rope_parameters")? {
        Some(table) => Some(table),
        None => config.child("rope_scaling")?,
    };
    let defaults = family.defaults();
    let interleaved = family == Family::Qwen3Vl;
    let theta = config.number_or("rope_theta", defaults.theta)?;
    let Some(table) = table else {
        return Ok(Rope { theta, sections: defaults.sections, interleaved, ..Rope::default() });
    };
    for fields in [config, &table] {
        let share = fields.number_or("partial_rotary_factor", 1.0)?;
        if share != 1.0 {
            let remedy = "choose a model that rotates whole heads";
            return Err(fields.error("partial_rotary_factor", share.to_string(), "1", remedy));
        }
    }
    let rope = Rope {
        theta: table.number_or("rope_theta", theta)?,
        sections: sections(&table, defaults.sections)?,
        interleaved,
        ..Rope::default()
    };
    // Phi and others give the original positions outside of the table.
    let original = match config.optional_size("original_max_position_embeddings")? {
        Some(original) => original,
        None => table.size_or("original_max_position_embeddings", positions)?,
    };
    match table.text_or("rope_type", table.text_or("type", "default")?)? {
        "default" | "mrope" => Ok(rope),
        "linear" => Ok(Rope { linear: Some(table.number("factor")?), ..rope }),
        "yarn" => Ok(Rope { yarn: Some(yarn(&table, positions, original)?), ..rope }),
        "llama3" => {
            let scaling = RopeScaling {
                factor: table.number("factor")?,
                low: table.number("low_freq_factor")?,
                high: table.number("high_freq_factor")?,
                original_positions: original,
            };
            Ok(Rope { scaling: Some(scaling), ..rope })
        }
        other => {
            let remedy =
                "choose a model with one of these, or drop the scaling for short sequences";
            let limit = "default, mrope, linear, yarn or llama3";
            Err(table.error("rope_type", format!("{other:?}"), limit, remedy))
        }
    }
}

fn yarn(table: &Fields<'_>, positions: u32, original: u32) -> Result<YarnScaling, SpecError> {
    let lengths = f64::from(positions) / f64::from(original.max(1));
    let factor = table.number_or("factor", lengths)?;
    let (scale, all) = (table.number_or("mscale", 0.0)?, table.number_or("mscale_all_dim", 0.0)?);
    let score = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let default = if scale != 0.0 && all != 0.0 { score(scale) / score(all) } else { score(1.0) };
    Ok(YarnScaling {
        factor,
        fast: table.number_or("beta_fast", 32.0)?,
        slow: table.number_or("beta_slow", 1.0)?,
        original_positions: original,
        amplitude: table.number_or("attention_factor", default)?,
        whole_angles: table.flag_or("truncate", true)?,
    })
}

/// The sections of a model that has some by default.
fn sections(table: &Fields<'_>, default: Option<[u32; 3]>) -> Result<Option<[u32; 3]>, SpecError> {
    let list = if default.is_some() { table.sizes("mrope_section")? } else { None };
    let Some(list) = list else { return Ok(default) };
    let shown = format!("{list:?}");
    let three: Result<[u32; 3], _> = list.try_into();
    three.map(Some).map_err(|_| {
        let remedy = "take the config.json that came with the weights";
        table.error("mrope_section", shown, "three sections: time, row and column", remedy)
    })
}

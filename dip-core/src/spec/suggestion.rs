//! The name that a mistyped name was meant to be.

/// Letters of a name for each of which one may be wrong.
const LETTERS_PER_ERROR: usize = 3;

/// The candidate that `name` was probably meant to be: the nearest, if about two thirds of the letters are right. Upper case and
/// lower case, and `-`, `_` and spaces, count as equal.
///
/// ```
/// assert_eq!(dip_core::closest("vlm_x", ["t2v-s", "vlm-s"]), Some("vlm-s"));
/// assert_eq!(dip_core::closest("gpipe", ["vlm-s"]), None);
/// ```
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['_', ' '], "-");
    let wanted = plain(name);
    // A long text is no name, and comparing it takes long.
    if wanted.is_empty() || wanted.len() > 100 {
        return None;
    }
    let distance = |candidate: &str| strsim::damerau_levenshtein(&wanted, &plain(candidate));
    let nearest = candidates.into_iter().map(|c| (distance(c), c)).min_by_key(|found| found.0)?;
    let most = (wanted.chars().count() / LETTERS_PER_ERROR).max(1);
    let is_other = nearest.0 < wanted.chars().count();
    (nearest.0 == 0 || nearest.0 <= most && is_other).then_some(nearest.1)
}

/// `; did you mean "vlm-s"?` for a name that is close to a candidate, else nothing.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    closest(name, candidates).map_or_else(String::new, |found| format!("; did you mean {found:?}?"))
}

/// Adds the probable name to serde's message about an unknown field or variant.
pub(super) fn with_suggestion(message: String) -> String {
    match suggestion(&message) {
        Some(found) => format!("{}; did you mean `{found}`?", message.trim_end()),
        None => message,
    }
}

/// Reads messages such as "unknown field `a`, expected one of `b`, `c`".
fn suggestion(message: &str) -> Option<&str> {
    let unknown = ["unknown field `", "unknown variant `"];
    let start = unknown.iter().find_map(|words| Some(message.rfind(words)? + words.len()))?;
    let (name, expected) = message[start..].split_once("`, expected ")?;
    closest(name, expected.split('`').skip(1).step_by(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let schedules = ["gpipe", "1f1b", "interleaved", "dip"];
        assert_eq!(closest("interleave", schedules), Some("interleaved"));
        assert_eq!(closest("1F1B", schedules), Some("1f1b"));
        assert_eq!(closest("dpi", schedules), Some("dip"));
        assert_eq!(closest("2f2b", schedules), None);
        assert_eq!(closest("x", ["y"]), None);
        assert_eq!(closest("", schedules), None);
        assert_eq!(closest(&"a".repeat(1 << 20), schedules), None);
        assert_eq!(did_you_mean("gipe", schedules), "; did you mean \"gpipe\"?");
    }
}

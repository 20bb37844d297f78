//! Documents without pictures: sums, counting and opposites, one a line.

use rand::Rng;
use rand::seq::IndexedRandom;

/// Most lines of a text.
const MAX_LINES: usize = 6;

const OPPOSITES: [(&str, &str); 8] = [
    ("left", "right"),
    ("up", "down"),
    ("big", "small"),
    ("old", "new"),
    ("hot", "cold"),
    ("day", "night"),
    ("fast", "slow"),
    ("light", "dark"),
];

/// A text of one to six lines.
pub fn text(rng: &mut impl Rng) -> String {
    let lines = rng.random_range(1..=MAX_LINES);
    let lines: Vec<String> = (0..lines).map(|_| line(rng)).collect();
    lines.join("\n")
}

fn line(rng: &mut impl Rng) -> String {
    match rng.random_range(0..3) {
        0 => {
            let (a, b) = (rng.random_range(0..10), rng.random_range(0..10));
            format!("{a} plus {b} is {}", a + b)
        }
        1 => {
            let from = rng.random_range(0..10);
            let numbers: Vec<String> = (from..from + 5).map(|n: i32| n.to_string()).collect();
            format!("count: {}", numbers.join(" "))
        }
        _ => {
            let (a, b) = *OPPOSITES.choose(rng).expect("there are opposites");
            let (a, b) = if rng.random_bool(0.5) { (a, b) } else { (b, a) };
            format!("the opposite of {a} is {b}")
        }
    }
}

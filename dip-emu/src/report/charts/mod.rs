//! Charts of comparisons: bars and lines as SVG, and a page that holds them and needs nothing but a browser.

mod bars;
mod frame;
mod lines;

use super::markup::escape;

pub use bars::{Bar, Bars, bars};
pub use lines::{Lines, Series, lines};

/// A chart with what it shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Headline.
    pub title: String,
    /// What is seen, in a sentence or two.
    pub caption: String,
    /// The chart, an `svg` element.
    pub svg: String,
}

/// Colours of series, far apart for most eyes. Further series start over.
pub(super) const COLOURS: [&str; 8] =
    ["#8a8f98", "#ca882b", "#2bca88", "#2b7aca", "#ca2b88", "#6d2bca", "#2bbdca", "#ca382b"];

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;margin:24px auto;max-width:980px;padding:0 16px}\
figure{margin:28px 0}figcaption{font-size:13px;opacity:.8}\
svg{width:100%;height:auto;border:1px solid #8884;border-radius:6px}\
text{font:12px system-ui,sans-serif;fill:currentColor}.g{stroke:#8884}.a{stroke:#888}\
pre{overflow-x:auto;font-size:12px;border:1px solid #8884;border-radius:6px;padding:10px}";

/// A page of figures, with a text such as a table in front of them.
pub fn page(title: &str, text: &str, figures: &[Figure]) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\
         <style>{STYLE}</style></head>\n<body><h1>{0}</h1>\n",
        escape(title)
    );
    if !text.is_empty() {
        out.push_str(&format!("<pre>{}</pre>\n", escape(text)));
    }
    for figure in figures {
        out.push_str(&format!(
            "<figure><h2>{}</h2>\n{}<figcaption>{}</figcaption></figure>\n",
            escape(&figure.title),
            figure.svg,
            escape(&figure.caption)
        ));
    }
    out.push_str("</body></html>\n");
    out
}

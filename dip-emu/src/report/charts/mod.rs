//! Charts of comparisons: bars and lines as SVG, and a self-contained page of them.

mod bars;
mod frame;
mod lines;

use super::markup::escape;

pub use bars::{Bar, BarSeries, Bars, bars};
pub use lines::{Lines, Series, lines};

/// A chart with a title and a caption.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The title.
    pub title: String,
    /// One or two sentences about the chart.
    pub caption: String,
    /// The chart, an `svg` element.
    pub svg: String,
}

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;margin:24px auto;max-width:980px;padding:0 16px}\
figure{margin:28px 0}figcaption{font-size:13px;opacity:.8}\
svg{width:100%;height:auto;border:1px solid #8884;border-radius:6px}\
text{font:12px system-ui,sans-serif;fill:currentColor}.g{stroke:#8884}.a{stroke:#888}\
pre{overflow-x:auto;font-size:12px;border:1px solid #8884;border-radius:6px;padding:10px}";

/// Returns a page of figures below a text, such as a table.
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

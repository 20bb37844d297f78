//! How the tokens of a picture with several views are arranged in the sequence.

/// How the tokens of the views of one picture are arranged in the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Arrangement {
    /// View after view, row after row.
    #[default]
    Rows,
    /// Like `Rows`, with one newline token at the end.
    RowsWithNewline,
    /// The first view like `Rows`. The others are tiles: their tokens are joined to one grid, cut, and each row of it ends with a
    /// newline token.
    Tiles(JoinedTiles),
    /// Every view has its own run of image tokens, with text before, between and after the runs.
    Split(TileGrid),
}

/// Tiles along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TileGrid {
    /// Tiles from top to bottom; 0 if the picture is not divided.
    pub rows: u32,
    /// Tiles from left to right; 0 if the picture is not divided.
    pub columns: u32,
}

/// The grid of joined tiles, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinedTiles {
    /// The tiles that are joined, row by row.
    pub tiles: TileGrid,
    /// Rows that are cut off at the top, and as many at the bottom: the padding of the picture.
    pub cut_rows: u32,
    /// Columns that are cut off at the left, and as many at the right.
    pub cut_columns: u32,
    /// Rows after the cut and the interpolation.
    pub rows: u32,
    /// Columns after the cut and the interpolation, without the newline.
    pub columns: u32,
    /// True if the cut grid is interpolated bilinearly to `rows` x `columns`; otherwise it has this size already.
    pub interpolated: bool,
}

/// A part of what stands for a picture in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptPiece {
    /// Text, some of it special tokens.
    Text(String),
    /// So many image tokens.
    Image(u32),
}

impl Arrangement {
    /// What stands in the text for a picture with `tokens` image tokens in `views` views, in order.
    pub(super) fn prompt(self, tokens: u32, views: u32) -> Vec<PromptPiece> {
        let Self::Split(TileGrid { rows, columns }) = self else {
            return vec![PromptPiece::Image(tokens)];
        };
        let mut pieces = Vec::new();
        let mut add = |text: String| {
            pieces.extend([PromptPiece::Text(text), PromptPiece::Image(tokens / views.max(1))]);
        };
        for row in 1..=rows {
            for column in 1..=columns {
                let newline = if row > 1 && column == 1 { "\n" } else { "" };
                add(format!("{newline}<fake_token_around_image><row_{row}_col_{column}>"));
            }
        }
        let newlines = if rows > 0 { "\n\n" } else { "" };
        add(format!("{newlines}<fake_token_around_image><global-img>"));
        pieces.push(PromptPiece::Text("<fake_token_around_image>".into()));
        pieces
    }
}

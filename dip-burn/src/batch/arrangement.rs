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

//! Layouts of pictures: views, and tokens with their arrangement.

use dip_core::hf::{ImageRule, PixelSize, SplitRule, SquareResize, SquareRule, TilesRule};

use super::{PatchGrid, sizes};
use crate::batch::{Arrangement, ImageLayout, JoinedTiles, TileGrid, ViewGrid};
use crate::data::PictureError;

/// Largest ratio of tokens to the limit at which a grid is not interpolated.
const INTERPOLATION_RATIO: f64 = 1.1;

/// Side of the square that a rule makes, in pixels.
pub(super) fn side(rule: &SquareRule) -> u32 {
    let resized = match rule.resize {
        SquareResize::ShorterSide(side) | SquareResize::Both(side) => side,
    };
    rule.crop_px.unwrap_or(resized)
}

/// The layout of a picture in a document with `pictures` pictures.
pub(super) fn of(
    rule: &ImageRule,
    patches: PatchGrid,
    size: PixelSize,
    pictures: usize,
) -> Result<ImageLayout, PictureError> {
    if size.pixels() == 0 {
        return Err(PictureError::broken("it has no pixels"));
    }
    match rule {
        ImageRule::Native(rule) => {
            let size = sizes::native(size, rule)?;
            Ok(patches.layout(vec![patches.view(size)], Arrangement::Rows))
        }
        ImageRule::Square(rule) => Ok(patches.square(side(rule))),
        ImageRule::Tiles(rule) => tiles(rule, patches, size, pictures),
        ImageRule::Split(rule) => Ok(split(rule, patches, size)),
    }
}

impl PatchGrid {
    fn view(self, size: PixelSize) -> ViewGrid {
        ViewGrid::still(size.height / self.patch_px, size.width / self.patch_px)
    }

    pub fn square(self, side: u32) -> ImageLayout {
        let layout = self.layout(vec![self.view(PixelSize::square(side))], Arrangement::Rows);
        ImageLayout { tokens: self.square_tokens, ..layout }
    }

    fn tokens(self, view: ViewGrid) -> u32 {
        (view.rows / self.merge) * (view.columns / self.merge)
    }

    /// The layout of views whose tokens follow one another.
    fn layout(self, views: Vec<ViewGrid>, arrangement: Arrangement) -> ImageLayout {
        let tokens = views.iter().map(|&view| self.tokens(view)).sum();
        ImageLayout { views, arrangement, tokens, ..ImageLayout::default() }
    }
}

fn tiles(
    rule: &TilesRule,
    patches: PatchGrid,
    size: PixelSize,
    pictures: usize,
) -> Result<ImageLayout, PictureError> {
    let view = patches.view(PixelSize::square(rule.side_px));
    if rule.alone && pictures != 1 {
        let layout = patches.layout(vec![view], Arrangement::RowsWithNewline);
        return Ok(ImageLayout { tokens: layout.tokens + 1, ..layout });
    }
    let unfit = || PictureError::Unfit { size, limit: "such that a row of its tiles has content" };
    let best = sizes::best_of(size, &rule.sizes).ok_or_else(unfit)?;
    let tiles = TileGrid { rows: best.height / rule.side_px, columns: best.width / rule.side_px };
    let side = view.rows / patches.merge;
    let joined = joined(tiles, side, size, rule.max_tiles);
    if joined.rows == 0 || joined.columns == 0 {
        return Err(unfit());
    }
    let views = vec![view; 1 + (tiles.rows * tiles.columns) as usize];
    let tokens = patches.tokens(view) + joined.rows * (joined.columns + 1);
    Ok(ImageLayout {
        views,
        arrangement: Arrangement::Tiles(joined),
        tokens,
        ..ImageLayout::default()
    })
}

/// The grid of tiles with `side` x `side` tokens, without the padding of a picture of `size`.
fn joined(tiles: TileGrid, side: u32, size: PixelSize, max_tiles: Option<u32>) -> JoinedTiles {
    let (mut rows, mut columns) = (side * tiles.rows, side * tiles.columns);
    let [width, height] = [size.width, size.height].map(f64::from);
    let (mut cut_rows, mut cut_columns) = (0, 0);
    if width / height > f64::from(columns) / f64::from(rows) {
        let content = whole_part(height * (f64::from(columns) / width));
        cut_rows = rows.saturating_sub(content) / 2;
        rows -= 2 * cut_rows;
    } else {
        let content = whole_part(width * (f64::from(rows) / height));
        cut_columns = columns.saturating_sub(content) / 2;
        columns -= 2 * cut_columns;
    }
    let mut joined =
        JoinedTiles { tiles, cut_rows, cut_columns, rows, columns, interpolated: false };
    if let Some(most) = max_tiles {
        let ratio = (f64::from(rows * columns) / f64::from(most * side.pow(2))).sqrt();
        if ratio > INTERPOLATION_RATIO {
            (joined.rows, joined.columns) =
                (whole_quotient(rows, ratio), whole_quotient(columns, ratio));
            joined.interpolated = true;
        }
    }
    joined
}

/// The whole part of a number that is first rounded to seven decimals.
fn whole_part(value: f64) -> u32 {
    format!("{value:.7}").parse::<f64>().map_or(0, |rounded| rounded as u32)
}

/// The floor division of floating-point numbers in Python.
fn whole_quotient(a: u32, b: f64) -> u32 {
    let a = f64::from(a);
    let quotient = (a - a % b) / b;
    let floor = quotient.floor();
    (if quotient - floor > 0.5 { floor + 1.0 } else { floor }) as u32
}

fn split(rule: &SplitRule, patches: PatchGrid, size: PixelSize) -> ImageLayout {
    let tiles = split_tiles(rule, size);
    let view = patches.view(PixelSize::square(rule.side_px));
    let views = vec![view; 1 + (tiles.rows * tiles.columns) as usize];
    patches.layout(views, Arrangement::Split(tiles))
}

/// The tiles of a split picture.
pub(super) fn split_tiles(rule: &SplitRule, size: PixelSize) -> TileGrid {
    if !rule.divide {
        return TileGrid { rows: 0, columns: 0 };
    }
    let size = sizes::with_longer_side(size, rule.longer_side_px);
    let size = sizes::in_tiles(size, rule.side_px);
    let (rows, columns) = (size.height / rule.side_px, size.width / rule.side_px);
    match (rows, columns) {
        (1, 1) => TileGrid { rows: 0, columns: 0 },
        _ => TileGrid { rows, columns },
    }
}

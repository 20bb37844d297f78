//! Any-resolution tiles: a picture is scaled to one of several resolutions and cut into square tiles.

use serde::{Deserialize, Serialize};

use super::ModuleSpec;
use crate::spec::batch::ImageSize;
use crate::spec::error::FieldError;

/// Maximum number of resolutions.
const MAX_RESOLUTIONS: usize = 1024;
/// Maximum number of tiles on a side of a resolution.
const MAX_SIDE_TILES: u32 = 64;

/// Ratio of the side of a grid to the limit above which it is scaled down.
const SCALING_RATIO: f64 = 1.1;

/// How a picture becomes tiles, as in LLaVA-NeXT and LLaVA-OneVision.
///
/// The encoder sees the whole picture on one square, and the picture at the resolution that suits it best, cut into squares. In
/// the decoder, the tokens of all tiles form one grid without its padding, and a learned token ends each of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TileSpec {
    /// The resolutions, `[height, width]` in pixels. Both are multiples of the image side.
    pub resolutions: Vec<[u32; 2]>,
    /// A grid with more tokens than this number of tiles is scaled down to as many. No limit if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tiles: Option<u32>,
}

impl TileSpec {
    /// The size of a picture that fills one of the resolutions. `own` is the size of one square, whose side is `image_px`.
    pub fn size(&self, [height, width]: [u32; 2], own: ImageSize, image_px: u32) -> ImageSize {
        let [down, across] = [height, width].map(|side| side / image_px.max(1));
        let side = own.tokens.isqrt();
        let (mut rows, mut columns) = (down.saturating_mul(side), across.saturating_mul(side));
        let area = f64::from(rows) * f64::from(columns);
        let ratio = (area / self.max_tokens(own)).sqrt();
        if ratio > SCALING_RATIO {
            [rows, columns] = [rows, columns].map(|n| (f64::from(n) / ratio) as u32);
        }
        self.sized(down.saturating_mul(across), rows.saturating_mul(columns.saturating_add(1)), own)
    }

    /// An upper bound of the size of a picture. See [`size`](Self::size) for the arguments.
    pub fn largest_size(&self, own: ImageSize, image_px: u32) -> ImageSize {
        let px = image_px.max(1);
        let grids = || self.resolutions.iter().map(|[h, w]| [h / px, w / px]);
        let tiles = grids().map(|[down, across]| down.saturating_mul(across)).max().unwrap_or(0);
        let rows =
            grids().map(|[down, _]| down).max().unwrap_or(0).saturating_mul(own.tokens.isqrt());
        let unscaled = self.max_tokens(own) * SCALING_RATIO * SCALING_RATIO;
        let tokens = f64::from(tiles) * f64::from(own.tokens);
        self.sized(tiles, (tokens.min(unscaled) as u32).saturating_add(rows), own)
    }

    /// The size of a picture with a view of the whole and `tiles` tiles, whose grid has `tokens` tokens.
    fn sized(&self, tiles: u32, tokens: u32, own: ImageSize) -> ImageSize {
        let views = tiles.saturating_add(1);
        let patches = own.patches.saturating_mul(views);
        ImageSize { patches, tokens: own.tokens.saturating_add(tokens), views }
    }

    /// Tokens of a grid to which larger grids are scaled.
    fn max_tokens(&self, own: ImageSize) -> f64 {
        self.max_tiles.map_or(f64::INFINITY, |tiles| f64::from(tiles) * f64::from(own.tokens))
    }

    /// Checks the tiles of `module`, whose image side is `image_px`.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub(super) fn validate(&self, module: &ModuleSpec, image_px: u32) -> Result<(), FieldError> {
        let path = || module.path("kind.vit.tiles.resolutions");
        let remedy = "take image_grid_pinpoints of the published model";
        if self.resolutions.is_empty() || self.resolutions.len() > MAX_RESOLUTIONS {
            let limit = format!("1 to {MAX_RESOLUTIONS} resolutions");
            return Err(FieldError::new(path(), self.resolutions.len(), limit, remedy));
        }
        let is_whole = |side: &u32| {
            side.is_multiple_of(image_px) && (1..=MAX_SIDE_TILES).contains(&(side / image_px))
        };
        if let Some(wrong) = self.resolutions.iter().find(|sides| !sides.iter().all(is_whole)) {
            let limit =
                format!("1 to {MAX_SIDE_TILES} times image_px = {image_px} in height and width");
            return Err(FieldError::new(path(), format!("{wrong:?}"), limit, remedy));
        }
        if let Some(max_tiles) = self.max_tiles {
            module.check("kind.vit.tiles.max_tiles", max_tiles, MAX_SIDE_TILES.pow(2))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: ImageSize = ImageSize { patches: 729, tokens: 729, views: 1 };

    fn tiles(max_tiles: Option<u32>) -> TileSpec {
        let sides = (1..=6).flat_map(|h| (1..=6).map(move |w| [h * 384, w * 384]));
        TileSpec { resolutions: sides.collect(), max_tiles }
    }

    #[test]
    fn a_picture_has_the_tokens_of_its_tiles_until_they_are_too_many() {
        let size = tiles(Some(9)).size([768, 1152], OWN, 384);
        assert_eq!(size, ImageSize { patches: 7 * 729, tokens: 729 + 54 * (81 + 1), views: 7 });
        let scaled = tiles(Some(9)).size([2304, 2304], OWN, 384);
        assert_eq!(scaled, ImageSize { patches: 37 * 729, tokens: 729 + 81 * 82, views: 37 });
    }

    #[test]
    fn no_picture_is_larger_than_the_largest() {
        for tiles in [tiles(None), tiles(Some(1)), tiles(Some(9))] {
            let largest = tiles.largest_size(OWN, 384);
            for &resolution in &tiles.resolutions {
                let size = tiles.size(resolution, OWN, 384);
                assert!(size.tokens <= largest.tokens && size.patches <= largest.patches);
            }
        }
    }
}

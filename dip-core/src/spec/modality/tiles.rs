//! Any-resolution tiles: a picture is scaled to one of several resolutions and cut into square tiles.

use serde::{Deserialize, Serialize};

use super::ModuleSpec;
use crate::spec::error::FieldError;

/// Maximum number of resolutions.
const MAX_RESOLUTIONS: usize = 1024;
/// Maximum number of tiles on a side of a resolution.
const MAX_SIDE_TILES: u32 = 64;

/// How a picture becomes tiles, as in LLaVA-NeXT and LLaVA-OneVision.
///
/// The encoder sees the whole picture on one square, and the picture at the resolution that suits it best, cut into squares. In
/// the decoder, the tokens of all tiles form one grid without its padding, and a learned token ends each of its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileSpec {
    /// The resolutions, `[height, width]` in pixels. Both are multiples of the image side.
    pub resolutions: Vec<[u32; 2]>,
    /// A grid with more tokens than this number of tiles is scaled down to as many. No limit if it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tiles: Option<u32>,
}

impl TileSpec {
    /// The largest number of tiles of a picture.
    pub fn most_tiles(&self, image_px: u32) -> u32 {
        let px = image_px.max(1);
        let tiles = |[height, width]: &[u32; 2]| (height / px).saturating_mul(width / px);
        self.resolutions.iter().map(tiles).max().unwrap_or(0)
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

//! Finds picture files that are cut off. Decoders fill the missing part of a JPEG with grey and report no error.

use image::ImageFormat;

/// True if the end of the file is missing; false for formats other than JPEG, PNG and WebP.
pub(super) fn is_truncated(bytes: &[u8], format: ImageFormat) -> bool {
    match format {
        ImageFormat::Jpeg => jpeg_end(bytes).is_none(),
        ImageFormat::Png => png_end(bytes).is_none(),
        ImageFormat::WebP => webp_end(bytes).is_none(),
        _ => false,
    }
}

/// The offset after the end marker of a JPEG.
fn jpeg_end(bytes: &[u8]) -> Option<usize> {
    const END: u8 = 0xd9;
    let mut at = 2;
    loop {
        // Fill bytes may precede a marker.
        at += bytes.get(at..)?.iter().position(|&b| b == 0xff)?;
        at += bytes.get(at..)?.iter().position(|&b| b != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            END => return Some(at),
            // Escaped data of a scan, and markers without a segment.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            _ => {
                let &[high, low] = bytes.get(at..at + 2)? else { return None };
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
}

/// The offset after the last chunk of a PNG.
fn png_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 8;
    loop {
        let header = bytes.get(at..at + 8)?;
        let length = u32::from_be_bytes(header[..4].try_into().ok()?);
        // Length, type and checksum.
        at += 12 + usize::try_from(length).ok()?;
        if &header[4..] == b"IEND" {
            return bytes.get(..at).map(<[u8]>::len);
        }
    }
}

/// The offset after the RIFF chunk of a WebP.
fn webp_end(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_le_bytes(bytes.get(4..8)?.try_into().ok()?);
    let end = usize::try_from(length).ok()?.checked_add(8)?;
    bytes.get(..end).map(<[u8]>::len)
}

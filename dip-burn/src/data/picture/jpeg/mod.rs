//! Decodes JPEG files, baseline and progressive, to the bytes that libjpeg gives, and so Pillow and PyTorch.
//!
//! Decoders differ in the rounding of the inverse transform and in how they interpolate colours of half resolution: by up to 16 of
//! 255 in common photographs. This one also reports every missing or damaged part, which others fill with grey.

mod bits;
mod color;
mod idct;
mod scan;
mod tables;
mod upsample;

use image::RgbImage;

use super::PictureError;
use scan::Progress;
use tables::{HuffmanTable, QuantTable, read_huffman, read_quant};

/// Most scans of a file. Files have up to ten or so; each takes time.
const MAX_SCANS: usize = 100;
/// Most bytes of coefficients.
const MAX_COEFFICIENT_BYTES: u64 = 1 << 29;

/// A damaged part of a file.
type Damage = &'static str;

/// One colour component of a frame.
struct Component {
    id: u8,
    /// Sampling factors.
    h: usize,
    v: usize,
    quant: usize,
    /// Size in samples.
    width: usize,
    height: usize,
    /// Blocks of a line of `coefficients`; whole MCUs.
    stride: usize,
    /// Blocks in zigzag order, `[rows, stride, 64]`.
    coefficients: Vec<[i16; 64]>,
    /// The quantisation table at the first scan of the component.
    table: Option<Box<QuantTable>>,
}

/// The picture as its header describes it.
struct Frame {
    progressive: bool,
    width: usize,
    height: usize,
    h_max: usize,
    v_max: usize,
    components: Vec<Component>,
}

/// What has been read of a file.
#[derive(Default)]
struct Decoder {
    frame: Option<Frame>,
    quant: [Option<Box<QuantTable>>; 4],
    dc: [Option<Box<HuffmanTable>>; 4],
    ac: [Option<Box<HuffmanTable>>; 4],
    restart_interval: usize,
    has_jfif: bool,
    /// The colour transform of an Adobe marker.
    adobe: Option<u8>,
    scans: usize,
}

/// The picture of a file, not turned. Its size has been checked.
pub(super) fn decode(bytes: &[u8]) -> Result<RgbImage, PictureError> {
    let mut decoder = Decoder::default();
    decoder.read(bytes).map_err(PictureError::broken)?;
    decoder.finish().map_err(PictureError::broken)
}

impl Decoder {
    fn read(&mut self, bytes: &[u8]) -> Result<(), Damage> {
        const CUT_OFF: Damage = "the file is cut off";
        let mut at = 2;
        loop {
            // Bytes between segments are no part of the picture.
            let rest = bytes.get(at..).ok_or(CUT_OFF)?;
            at += rest.iter().position(|&byte| byte == 0xff).ok_or(CUT_OFF)?;
            at += bytes[at..].iter().position(|&byte| byte != 0xff).ok_or(CUT_OFF)?;
            let marker = bytes[at];
            at += 1;
            match marker {
                0xd9 => return Ok(()),
                0x00 | 0x01 | 0xd0..=0xd8 => continue,
                _ => {}
            }
            let &[high, low] = bytes.get(at..at + 2).ok_or(CUT_OFF)? else { return Err(CUT_OFF) };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = bytes.get(at + 2..at + length).ok_or(CUT_OFF)?;
            at += length;
            match marker {
                0xc0..=0xc2 => self.start(segment, marker == 0xc2)?,
                0xc4 => read_huffman(segment, &mut self.dc, &mut self.ac)?,
                0xc9..=0xca => return Err("it has arithmetic coding, which is not read"),
                0xc3 | 0xc5..=0xc7 | 0xcb | 0xcd..=0xcf => {
                    return Err("it is a lossless JPEG, which is not read");
                }
                0xda => at += self.scan(segment, &bytes[at..])?,
                0xdb => read_quant(segment, &mut self.quant)?,
                0xdc => return Err("its height comes after its first scan, which is not read"),
                0xdd => {
                    let &[high, low] = segment else { return Err("a wrong restart interval") };
                    self.restart_interval = u16::from_be_bytes([high, low]).into();
                }
                0xe0 if segment.starts_with(b"JFIF\0") => self.has_jfif = true,
                0xee if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied(),
                _ => {}
            }
        }
    }

    /// Reads the header of the frame.
    fn start(&mut self, segment: &[u8], progressive: bool) -> Result<(), Damage> {
        const WRONG: Damage = "a wrong frame header";
        if self.frame.is_some() {
            return Err("it has two frames");
        }
        let &[precision, h1, h0, w1, w0, count, ref specs @ ..] = segment else {
            return Err(WRONG);
        };
        if precision != 8 {
            return Err("it has 12 bits per colour, which is not read");
        }
        let width = usize::from(u16::from_be_bytes([w1, w0]));
        let height = usize::from(u16::from_be_bytes([h1, h0]));
        if width == 0
            || height == 0
            || !matches!(count, 1 | 3 | 4)
            || specs.len() != 3 * usize::from(count)
        {
            return Err(WRONG);
        }
        let factors = |spec: &[u8]| (usize::from(spec[1] >> 4), usize::from(spec[1] & 15));
        let all = || specs.chunks_exact(3).map(factors);
        if all().any(|(h, v)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err(WRONG);
        }
        let h_max = all().map(|(h, _)| h).max().unwrap_or(1);
        let v_max = all().map(|(_, v)| v).max().unwrap_or(1);
        let (columns, rows) = (width.div_ceil(8 * h_max), height.div_ceil(8 * v_max));
        let blocks: usize = all().map(|(h, v)| h * v).sum::<usize>() * columns * rows;
        if blocks as u64 * 128 > MAX_COEFFICIENT_BYTES {
            return Err("it is too large");
        }
        let component = |spec: &[u8]| {
            let (h, v) = factors(spec);
            Component {
                id: spec[0],
                h,
                v,
                quant: usize::from(spec[2] & 3),
                width: (width * h).div_ceil(h_max),
                height: (height * v).div_ceil(v_max),
                stride: columns * h,
                coefficients: vec![[0; 64]; columns * h * rows * v],
                table: None,
            }
        };
        let components = specs.chunks_exact(3).map(component).collect();
        self.frame = Some(Frame { progressive, width, height, h_max, v_max, components });
        Ok(())
    }

    /// Reads a scan, and returns its length.
    fn scan(&mut self, header: &[u8], data: &[u8]) -> Result<usize, Damage> {
        const WRONG: Damage = "a wrong scan header";
        let frame = self.frame.as_mut().ok_or("a scan before its frame")?;
        self.scans += 1;
        if self.scans > MAX_SCANS {
            return Err("it has too many scans");
        }
        let (&count, rest) = header.split_first().ok_or(WRONG)?;
        let count = usize::from(count);
        let (specs, end) = rest.split_at_checked(2 * count).ok_or(WRONG)?;
        let &[first, last, approximation] = end else { return Err(WRONG) };
        let progress = Progress::new(frame.progressive, first, last, approximation)?;
        let mut parts = Vec::with_capacity(count);
        for spec in specs.chunks_exact(2) {
            let index = frame.components.iter().position(|c| c.id == spec[0]).ok_or(WRONG)?;
            if parts.iter().any(|part: &scan::Part<'_>| part.component == index) {
                return Err(WRONG);
            }
            let component = &mut frame.components[index];
            if component.table.is_none() {
                let table = self.quant[component.quant].clone();
                component.table = Some(table.ok_or("a missing quantisation table")?);
            }
            let table = |tables: &'_ [Option<Box<HuffmanTable>>; 4], n: u8| {
                tables[usize::from(n & 3)].is_some()
            };
            let (dc, ac) = (spec[1] >> 4, spec[1] & 15);
            if progress.needs_dc() && !table(&self.dc, dc)
                || progress.needs_ac() && !table(&self.ac, ac)
            {
                return Err("a missing Huffman table");
            }
            parts.push(scan::Part {
                component: index,
                dc: self.dc[usize::from(dc & 3)].as_deref(),
                ac: self.ac[usize::from(ac & 3)].as_deref(),
            });
        }
        if parts.is_empty() || (progress.needs_ac() && frame.progressive && parts.len() > 1) {
            return Err(WRONG);
        }
        scan::read(frame, &parts, progress, self.restart_interval, data)
    }

    fn finish(self) -> Result<RgbImage, Damage> {
        let frame = self.frame.ok_or("it has no frame")?;
        let mut planes = Vec::with_capacity(frame.components.len());
        for component in &frame.components {
            let table = component.table.as_ref().ok_or("a colour is missing")?;
            let plane = idct::samples(component, table);
            planes.push(upsample::to_full_size(plane, component, &frame)?);
        }
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        let space = color::Space::of(&ids, self.has_jfif, self.adobe);
        color::rgb(&planes, (frame.width, frame.height), space)
    }
}

#[cfg(test)]
mod tests;

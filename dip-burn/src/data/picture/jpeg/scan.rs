//! The coefficients of a scan.

use super::bits::BitReader;
use super::tables::HuffmanTable;
use super::{Damage, Frame};

/// A component of a scan.
pub(super) struct Part<'a> {
    pub component: usize,
    pub dc: Option<&'a HuffmanTable>,
    pub ac: Option<&'a HuffmanTable>,
}

/// The part of every coefficient that a scan has.
#[derive(Clone, Copy)]
pub(super) struct Progress {
    progressive: bool,
    /// First and last coefficient, in zigzag order.
    first: usize,
    last: usize,
    /// True if an earlier scan has the higher bits.
    refines: bool,
    /// Bits that are still missing.
    low: u32,
}

impl Progress {
    pub fn new(progressive: bool, first: u8, last: u8, approximation: u8) -> Result<Self, Damage> {
        let (high, low) = (approximation >> 4, approximation & 15);
        let whole = Self { progressive, first: 0, last: 63, refines: false, low: 0 };
        if !progressive {
            return Ok(whole);
        }
        let spectrum = if first == 0 { last == 0 } else { first <= last && last <= 63 };
        let bits = low <= 13 && (high == 0 || high == low + 1);
        if !spectrum || !bits {
            return Err("a wrong scan header");
        }
        Ok(Self {
            first: first.into(),
            last: last.into(),
            refines: high > 0,
            low: low.into(),
            ..whole
        })
    }

    pub fn needs_dc(self) -> bool {
        self.first == 0 && !self.refines
    }

    pub fn needs_ac(self) -> bool {
        self.last > 0
    }
}

/// The state between blocks.
struct State<'a> {
    bits: BitReader<'a>,
    progress: Progress,
    /// The last first coefficient of every part.
    dc: [i32; 4],
    /// Blocks without coefficients that follow.
    empty_blocks: u32,
}

/// Reads a scan, and returns its length.
pub(super) fn read(
    frame: &mut Frame,
    parts: &[Part<'_>],
    progress: Progress,
    restart_interval: usize,
    data: &[u8],
) -> Result<usize, Damage> {
    let bits = BitReader::new(data);
    let mut state = State { bits, progress, dc: [0; 4], empty_blocks: 0 };
    let is_single = parts.len() == 1;
    let (columns, rows) = match parts {
        // The blocks of one component, without those that only fill up the last MCUs.
        [part] => {
            let component = &frame.components[part.component];
            (component.width.div_ceil(8), component.height.div_ceil(8))
        }
        _ => (frame.width.div_ceil(8 * frame.h_max), frame.height.div_ceil(8 * frame.v_max)),
    };
    let mut unit = 0;
    for row in 0..rows {
        for column in 0..columns {
            if restart_interval > 0 && unit > 0 && unit % restart_interval == 0 {
                state.bits.restart()?;
                (state.dc, state.empty_blocks) = ([0; 4], 0);
            }
            unit += 1;
            for (index, part) in parts.iter().enumerate() {
                let component = &mut frame.components[part.component];
                let (h, v) = if is_single { (1, 1) } else { (component.h, component.v) };
                for y in row * v..row * v + v {
                    for x in column * h..column * h + h {
                        let block = &mut component.coefficients[y * component.stride + x];
                        state.block(block, part, index)?;
                    }
                }
            }
        }
    }
    Ok(state.bits.end())
}

impl State<'_> {
    fn block(
        &mut self,
        block: &mut [i16; 64],
        part: &Part<'_>,
        index: usize,
    ) -> Result<(), Damage> {
        let Progress { progressive, first, refines, .. } = self.progress;
        if first == 0 {
            self.first_coefficient(block, part, index)?;
        }
        match (progressive, refines) {
            (false, _) => self.baseline(block, part),
            (true, _) if first == 0 => Ok(()),
            (true, false) => self.first_pass(block, part),
            (true, true) => self.refinement(block, part),
        }
    }

    fn first_coefficient(
        &mut self,
        block: &mut [i16; 64],
        part: &Part<'_>,
        index: usize,
    ) -> Result<(), Damage> {
        if self.progress.refines {
            block[0] |= (self.bits.bits(1)? << self.progress.low) as i16;
            return Ok(());
        }
        let table = part.dc.ok_or("a missing Huffman table")?;
        let length = self.bits.symbol(table)?;
        if length > 15 {
            return Err("a wrong code");
        }
        let difference = self.bits.signed(length.into())?;
        self.dc[index] = self.dc[index].wrapping_add(difference);
        block[0] = (self.dc[index] << self.progress.low) as i16;
        Ok(())
    }

    fn baseline(&mut self, block: &mut [i16; 64], part: &Part<'_>) -> Result<(), Damage> {
        let table = part.ac.ok_or("a missing Huffman table")?;
        let mut k = 1;
        while k < 64 {
            let symbol = self.bits.symbol(table)?;
            let (run, length) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if length == 0 {
                if run < 15 {
                    break;
                }
                k += 16;
                continue;
            }
            k += run;
            let value = self.bits.signed(length)?;
            *block.get_mut(k).ok_or("too many coefficients")? = value as i16;
            k += 1;
        }
        Ok(())
    }

    fn first_pass(&mut self, block: &mut [i16; 64], part: &Part<'_>) -> Result<(), Damage> {
        if self.empty_blocks > 0 {
            self.empty_blocks -= 1;
            return Ok(());
        }
        let table = part.ac.ok_or("a missing Huffman table")?;
        let mut k = self.progress.first;
        while k <= self.progress.last {
            let symbol = self.bits.symbol(table)?;
            let (run, length) = (symbol >> 4, u32::from(symbol & 15));
            if length > 0 {
                k += usize::from(run);
                let value = self.bits.signed(length)? << self.progress.low;
                *block.get_mut(k).ok_or("too many coefficients")? = value as i16;
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                self.empty_blocks = self.run_of_blocks(run)? - 1;
                break;
            }
        }
        Ok(())
    }

    /// The number of blocks that have no further coefficients, with this one.
    fn run_of_blocks(&mut self, bits: u8) -> Result<u32, Damage> {
        Ok((1 << bits) + self.bits.bits(bits.into())?)
    }

    fn refinement(&mut self, block: &mut [i16; 64], part: &Part<'_>) -> Result<(), Damage> {
        let table = part.ac.ok_or("a missing Huffman table")?;
        let bit = 1i16 << self.progress.low;
        let mut k = self.progress.first;
        if self.empty_blocks == 0 {
            while k <= self.progress.last {
                let symbol = self.bits.symbol(table)?;
                let (run, length) = (symbol >> 4, symbol & 15);
                let new = match length {
                    0 if run < 15 => {
                        self.empty_blocks = self.run_of_blocks(run)?;
                        break;
                    }
                    0 => 0,
                    1 => {
                        if self.bits.bits(1)? == 1 {
                            bit
                        } else {
                            -bit
                        }
                    }
                    _ => return Err("a wrong code"),
                };
                k = self.refine(block, k, Some(run.into()))?;
                if new != 0 {
                    if k > self.progress.last {
                        return Err("too many coefficients");
                    }
                    block[k] = new;
                }
                k += 1;
            }
        }
        if self.empty_blocks > 0 {
            self.refine(block, k, None)?;
            self.empty_blocks -= 1;
        }
        Ok(())
    }

    /// Refines the coefficients from `k` on that are not zero, up to the zero after `zeros` zeros, and returns its place.
    fn refine(
        &mut self,
        block: &mut [i16; 64],
        mut k: usize,
        zeros: Option<u32>,
    ) -> Result<usize, Damage> {
        let bit = 1i16 << self.progress.low;
        let mut left = zeros;
        while k <= self.progress.last {
            let value = &mut block[k];
            if *value == 0 {
                match &mut left {
                    Some(0) => break,
                    Some(left) => *left -= 1,
                    None => {}
                }
            } else if self.bits.bits(1)? == 1 && *value & bit == 0 {
                *value = value.wrapping_add(if *value > 0 { bit } else { -bit });
            }
            k += 1;
        }
        Ok(k)
    }
}

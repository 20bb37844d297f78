//! Quantisation and Huffman tables.

use super::Damage;

/// Factors of the coefficients, in zigzag order.
pub(super) type QuantTable = [u16; 64];

/// Bits that one look-up decodes.
pub(super) const FAST_BITS: u32 = 9;

/// A Huffman table.
pub(super) struct HuffmanTable {
    /// Length and symbol of the codes that begin with these bits; length 0 for longer codes.
    pub fast: Box<[(u8, u8); 1 << FAST_BITS]>,
    /// For each length, one more than the largest code with this length, left-aligned in 16 bits; 0 without codes.
    pub end: [u32; 17],
    /// For each length, the index of its first symbol less its first code.
    pub offset: [i32; 17],
    pub symbols: Vec<u8>,
}

pub(super) fn read_quant(
    mut segment: &[u8],
    tables: &mut [Option<Box<QuantTable>>; 4],
) -> Result<(), Damage> {
    const WRONG: Damage = "a wrong quantisation table";
    while let Some((&head, rest)) = segment.split_first() {
        let (wide, index) = (head >> 4, usize::from(head & 15));
        let bytes = if wide == 0 { 64 } else { 128 };
        let (values, rest) = rest.split_at_checked(bytes).ok_or(WRONG)?;
        let table = tables.get_mut(index).ok_or(WRONG)?;
        let value = |i: usize| match wide {
            0 => values[i].into(),
            _ => u16::from_be_bytes([values[2 * i], values[2 * i + 1]]),
        };
        *table = Some(Box::new(std::array::from_fn(value)));
        segment = rest;
    }
    Ok(())
}

/// Tables for the first coefficient and for the others.
type HuffmanTables = [Option<Box<HuffmanTable>>; 4];

pub(super) fn read_huffman(
    mut segment: &[u8],
    dc: &mut HuffmanTables,
    ac: &mut HuffmanTables,
) -> Result<(), Damage> {
    const WRONG: Damage = "a wrong Huffman table";
    while let Some((&head, rest)) = segment.split_first() {
        let (counts, rest) = rest.split_at_checked(16).ok_or(WRONG)?;
        let total: usize = counts.iter().map(|&n| usize::from(n)).sum();
        let (symbols, rest) = rest.split_at_checked(total).ok_or(WRONG)?;
        let table = HuffmanTable::new(counts, symbols).ok_or(WRONG)?;
        let tables = match head >> 4 {
            0 => &mut *dc,
            1 => &mut *ac,
            _ => return Err(WRONG),
        };
        *tables.get_mut(usize::from(head & 15)).ok_or(WRONG)? = Some(Box::new(table));
        segment = rest;
    }
    Ok(())
}

impl HuffmanTable {
    fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        if symbols.len() > 256 {
            return None;
        }
        let mut table = Self {
            fast: Box::new([(0, 0); 1 << FAST_BITS]),
            end: [0; 17],
            offset: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            table.offset[length as usize] = index as i32 - code as i32;
            for _ in 0..count {
                if code >> length != 0 {
                    return None;
                }
                if length <= FAST_BITS {
                    let first = (code << (FAST_BITS - length)) as usize;
                    let codes = 1 << (FAST_BITS - length);
                    table.fast[first..first + codes].fill((length as u8, symbols[index]));
                }
                (code, index) = (code + 1, index + 1);
            }
            if count > 0 {
                table.end[length as usize] = code << (16 - length);
            }
            code <<= 1;
        }
        Some(table)
    }
}

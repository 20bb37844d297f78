//! The bits of a scan.

use super::Damage;
use super::tables::{FAST_BITS, HuffmanTable};

/// Reads the bits of a scan up to the next marker.
pub(super) struct BitReader<'a> {
    data: &'a [u8],
    /// The next byte.
    at: usize,
    bits: u64,
    /// Valid bits at the low end of `bits`.
    count: u32,
}

impl<'a> BitReader<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, bits: 0, count: 0 }
    }

    /// Appends bytes while there are some before the next marker.
    fn fill(&mut self) {
        while self.count <= 48 {
            let Some(&byte) = self.data.get(self.at) else { return };
            if byte == 0xff {
                // A zero after it makes it data.
                if self.data.get(self.at + 1) != Some(&0) {
                    return;
                }
                self.at += 1;
            }
            self.at += 1;
            self.bits = self.bits << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// The next `n` bits, at most 16; zeros after the end.
    fn peek(&mut self, n: u32) -> u32 {
        if self.count < n {
            self.fill();
        }
        let mask = (1 << n) - 1;
        match self.count.checked_sub(n) {
            Some(rest) => (self.bits >> rest) as u32 & mask,
            None => (self.bits << (n - self.count)) as u32 & mask,
        }
    }

    fn consume(&mut self, n: u32) -> Result<(), Damage> {
        self.count = self.count.checked_sub(n).ok_or("a scan is cut off")?;
        Ok(())
    }

    /// The next `n` bits, at most 16.
    pub fn bits(&mut self, n: u32) -> Result<u32, Damage> {
        if n == 0 {
            return Ok(0);
        }
        let bits = self.peek(n);
        self.consume(n)?;
        Ok(bits)
    }

    /// A signed number of `n` bits, at most 16.
    pub fn signed(&mut self, n: u32) -> Result<i32, Damage> {
        let bits = self.bits(n)? as i32;
        let is_negative = n > 0 && bits < 1 << (n - 1);
        Ok(if is_negative { bits - (1 << n) + 1 } else { bits })
    }

    pub fn symbol(&mut self, table: &HuffmanTable) -> Result<u8, Damage> {
        let code = self.peek(16);
        let (length, symbol) = table.fast[(code >> (16 - FAST_BITS)) as usize];
        if length > 0 {
            self.consume(length.into())?;
            return Ok(symbol);
        }
        for length in FAST_BITS + 1..=16 {
            if code < table.end[length as usize] {
                let index = (code >> (16 - length)) as i32 + table.offset[length as usize];
                let symbol = usize::try_from(index).ok().and_then(|i| table.symbols.get(i));
                self.consume(length)?;
                return symbol.copied().ok_or("a wrong code");
            }
        }
        Err("a wrong code")
    }

    /// Goes past a restart marker.
    pub fn restart(&mut self) -> Result<(), Damage> {
        self.fill();
        if self.count >= 8 {
            return Err("a restart marker is missing");
        }
        (self.bits, self.count) = (0, 0);
        match self.data.get(self.at..self.at + 2) {
            Some(&[0xff, 0xd0..=0xd7]) => self.at += 2,
            _ => return Err("a restart marker is missing"),
        }
        Ok(())
    }

    /// The offset after the bytes that have been used.
    pub fn end(&self) -> usize {
        self.at
    }
}

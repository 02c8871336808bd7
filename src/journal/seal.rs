//! A hash over a row's columns, kept in the row.

use twox_hash::XxHash3_128;

/// Collects a row's columns.
#[derive(Debug)]
pub struct Seal(Vec<u8>);

impl Seal {
    /// For a row of `table`, so that a row that strayed into another one does not fit.
    pub fn new(table: &'static str) -> Self {
        let mut bytes = Vec::with_capacity(512);
        bytes.extend_from_slice(table.as_bytes());
        Self(bytes)
    }

    /// Adds a number.
    pub fn int(mut self, value: i64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Adds bytes, told apart from what follows by their length.
    pub fn bytes(mut self, value: &[u8]) -> Self {
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
        self
    }

    /// 32 bits: four bytes in a row, and one wrong row in four billion passes.
    pub fn value(self) -> i64 {
        i64::from(XxHash3_128::oneshot(&self.0) as u32 as i32)
    }
}

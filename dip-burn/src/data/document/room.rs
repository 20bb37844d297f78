//! The room that a document may take.

/// The free room of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Tokens, including image tokens.
    pub tokens: u32,
    /// Images.
    pub images: u32,
    /// Patches of all images.
    pub patches: u64,
}

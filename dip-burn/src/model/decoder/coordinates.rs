//! Coordinates of the tokens of a packed sequence: time, row and column, as in Qwen2-VL.

use crate::batch::Microbatch;

/// Time, row and column of every token, `[t]`.
///
/// All three coordinates of text increase by one with each token. All tokens of an image, a square of `side` tokens, have the same
/// time; rows and columns count from it. The text after an image continues after its last row. Every document begins at 0.
pub(super) fn coordinates(microbatch: &Microbatch, side: usize) -> Vec<[u32; 3]> {
    let documents = &microbatch.documents;
    let mut images = microbatch.image_offsets.iter().map(|&o| o as usize).peekable();
    let mut places = Vec::with_capacity(documents.len());
    let mut next = 0;
    while places.len() < documents.len() {
        let at = places.len();
        if at == 0 || documents[at] != documents[at - 1] {
            next = 0;
        }
        if side > 0 && images.next_if_eq(&at).is_some() {
            let of_image = (0..side * side)
                .map(|i| [next, next + (i / side) as u32, next + (i % side) as u32]);
            places.extend(of_image);
            next += side as u32;
        } else {
            places.push([next; 3]);
            next += 1;
        }
    }
    places.truncate(documents.len());
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_continues_after_the_last_row_of_an_image_and_documents_begin_at_zero() {
        let microbatch = Microbatch {
            documents: vec![0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
            image_offsets: vec![1, 6],
            ..Microbatch::default()
        };
        let expected = [
            [0, 0, 0],
            [1, 1, 1],
            [1, 1, 2],
            [1, 2, 1],
            [1, 2, 2],
            [3, 3, 3],
            [0, 0, 0],
            [0, 0, 1],
            [0, 1, 0],
            [0, 1, 1],
            [2, 2, 2],
        ];
        assert_eq!(coordinates(&microbatch, 2), expected);
    }
}

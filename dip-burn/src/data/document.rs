//! Documents: text and pictures in order, and their tokens.

use super::error::TokenizeError;
use super::picture::Picture;
use super::tokenizer::Tokenizer;

/// Placeholder of a picture in a text.
pub const IMAGE_MARK: &str = "<image>";

/// Text and pictures, in reading order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Document {
    /// The pieces, in reading order.
    pub pieces: Vec<DocumentPiece>,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum DocumentPiece {
    /// Text without image marks.
    Text(String),
    /// A picture, not yet decoded.
    Picture(Picture),
}

impl Document {
    /// Replaces each mark in `text` by a picture. A text without marks gets its pictures in front. `None` if the numbers of
    /// marks and pictures differ.
    pub fn interleave(text: &str, pictures: Vec<Picture>) -> Option<Self> {
        let marks = text.matches(IMAGE_MARK).count();
        if marks != 0 && marks != pictures.len() {
            return None;
        }
        let mut pieces = Vec::with_capacity(2 * pictures.len() + 1);
        let mut pictures = pictures.into_iter().map(DocumentPiece::Picture);
        if marks == 0 {
            pieces.extend(&mut pictures);
        }
        for (i, part) in text.split(IMAGE_MARK).enumerate() {
            if i > 0 {
                pieces.extend(pictures.next());
            }
            if !part.is_empty() {
                pieces.push(DocumentPiece::Text(part.to_owned()));
            }
        }
        Some(Self { pieces })
    }

    /// The text with a mark for each picture.
    pub fn marked_text(&self) -> String {
        let mark = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => text.clone(),
            DocumentPiece::Picture(_) => IMAGE_MARK.to_owned(),
        };
        self.pieces.iter().map(mark).collect()
    }

    /// The pictures, in order.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pieces.iter().filter_map(|piece| match piece {
            DocumentPiece::Picture(picture) => Some(picture),
            DocumentPiece::Text(_) => None,
        })
    }

    /// The tokens of the document: beginning mark, pieces, end mark. Each picture takes `tokens_per_image` image tokens.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer refuses a text.
    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        tokens_per_image: u32,
    ) -> Result<TokenizedDocument, TokenizeError> {
        let mut out = self.tokenize_open(tokenizer, tokens_per_image)?;
        out.tokens.push(tokenizer.special().eos);
        Ok(out)
    }

    /// Like [`Document::tokenize`], but without the end mark: a prompt to continue.
    ///
    /// # Errors
    /// [`TokenizeError`] if the tokenizer refuses a text.
    pub fn tokenize_open(
        &self,
        tokenizer: &Tokenizer,
        tokens_per_image: u32,
    ) -> Result<TokenizedDocument, TokenizeError> {
        let special = tokenizer.special();
        let mut out = TokenizedDocument { tokens: vec![special.bos], pictures: Vec::new() };
        for piece in &self.pieces {
            match piece {
                DocumentPiece::Text(text) => out.tokens.extend(tokenizer.encode(text)?),
                DocumentPiece::Picture(picture) => {
                    let (offset, picture) = (out.tokens.len() as u32, picture.clone());
                    out.pictures.push(PlacedPicture { offset, picture });
                    let tokens = out.tokens.len() + tokens_per_image as usize;
                    out.tokens.resize(tokens, special.image);
                }
            }
        }
        Ok(out)
    }
}

/// A document as token ids.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizedDocument {
    /// Token ids; every picture is a run of image tokens.
    pub tokens: Vec<u32>,
    /// The pictures, in order.
    pub pictures: Vec<PlacedPicture>,
}

/// A picture in a sequence of tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PlacedPicture {
    /// Offset of its first image token; the others follow it.
    pub offset: u32,
    /// The picture.
    pub picture: Picture,
}

impl TokenizedDocument {
    /// Cuts the document to at most `tokens` tokens and `images` images, and returns true if it was longer. A cut never divides
    /// an image: the first image that does not fit is left out with all that follows.
    pub fn truncate(&mut self, tokens: u32, images: u32, tokens_per_image: u32) -> bool {
        let end = self.kept_tokens(tokens, images, tokens_per_image);
        let cut = self.tokens.len() > end;
        self.pictures.retain(|placed| (placed.offset as usize) < end);
        self.tokens.truncate(end);
        cut
    }

    /// The length that [`TokenizedDocument::truncate`] leaves.
    pub fn kept_tokens(&self, tokens: u32, images: u32, tokens_per_image: u32) -> usize {
        let fits =
            |offset: u32| u64::from(offset) + u64::from(tokens_per_image) <= u64::from(tokens);
        let offsets = self.pictures.iter().map(|placed| placed.offset);
        let left_out = offsets.enumerate().find(|&(i, at)| i >= images as usize || !fits(at));
        let end = left_out.map_or(tokens, |(_, offset)| offset.min(tokens));
        self.tokens.len().min(end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(n: u8) -> Picture {
        Picture::Encoded(vec![n].into())
    }

    #[test]
    fn marks_place_pictures_and_a_text_without_marks_follows_them() {
        let marked =
            Document::interleave("a<image>b<image>", vec![picture(1), picture(2)]).unwrap();
        assert_eq!(marked.marked_text(), "a<image>b<image>");
        assert_eq!(marked.pictures().cloned().collect::<Vec<_>>(), [picture(1), picture(2)]);
        let plain = Document::interleave("b", vec![picture(1), picture(2)]).unwrap();
        assert_eq!(plain.marked_text(), "<image><image>b");
        assert_eq!(Document::interleave("a<image>", vec![picture(1), picture(2)]), None);
        assert_eq!(Document::interleave("a<image>", vec![]), None);
    }

    #[test]
    fn a_picture_is_a_run_of_image_tokens() {
        let tokenizer = Tokenizer::bytes();
        let document = Document::interleave("a<image>b", vec![picture(1)]).unwrap();
        let tokens = document.tokenize(&tokenizer, 3).unwrap();
        let s = tokenizer.special();
        assert_eq!(tokens.tokens, [s.bos, 97, s.image, s.image, s.image, 98, s.eos]);
        assert_eq!(tokens.pictures, [PlacedPicture { offset: 2, picture: picture(1) }]);
    }

    #[test]
    fn truncation_never_cuts_an_image() {
        let tokenizer = Tokenizer::bytes();
        let document = Document::interleave("a<image>b<image>c", vec![picture(1), picture(2)]);
        let whole = document.unwrap().tokenize(&tokenizer, 3).unwrap();
        let cut = |tokens, images| {
            let mut d = whole.clone();
            let cut = d.truncate(tokens, images, 3);
            (d.tokens.len(), d.pictures.len(), cut)
        };
        assert_eq!(cut(11, 2), (11, 2, false));
        assert_eq!(cut(10, 2), (10, 2, true));
        assert_eq!(cut(8, 2), (6, 1, true));
        assert_eq!(cut(4, 2), (2, 0, true));
        assert_eq!(cut(11, 1), (6, 1, true));
        assert_eq!(cut(0, 0), (0, 0, true));
    }
}

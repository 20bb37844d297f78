//! Documents: text and pictures in order, and their tokens.

use super::conversation::{Conversation, Role, Turn};
use super::error::DocumentError;
use super::picture::Picture;
use super::processor::ImageProcessor;
use super::tokenizer::Tokenizer;
use crate::batch::ImageLayout;

/// Placeholder of a picture in a text.
pub const IMAGE_MARK: &str = "<image>";

/// Text and pictures, in reading order.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// Text and pictures without speakers; all text has a loss.
    Plain(Vec<DocumentPiece>),
    /// The turns of a conversation; only the assistant's have a loss.
    Conversation(Conversation),
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
        Some(Self::Plain(pieces))
    }

    /// The pieces, in reading order.
    pub fn pieces(&self) -> impl Iterator<Item = &DocumentPiece> {
        let (plain, turns): (&[DocumentPiece], &[Turn]) = match self {
            Self::Plain(pieces) => (pieces, &[]),
            Self::Conversation(conversation) => (&[], &conversation.turns),
        };
        plain.iter().chain(turns.iter().flat_map(|turn| &turn.pieces))
    }

    /// The text with a mark for each picture.
    pub fn marked_text(&self) -> String {
        let mark = |piece: &DocumentPiece| match piece {
            DocumentPiece::Text(text) => text.clone(),
            DocumentPiece::Picture(_) => IMAGE_MARK.to_owned(),
        };
        self.pieces().map(mark).collect()
    }

    /// The pictures, in order.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.pieces().filter_map(|piece| match piece {
            DocumentPiece::Picture(picture) => Some(picture),
            DocumentPiece::Text(_) => None,
        })
    }

    /// The tokens of the document: beginning mark, pieces, end mark. Each picture takes as many image tokens as its layout says;
    /// without a processor it takes none.
    ///
    /// # Errors
    /// [`DocumentError`] if the tokenizer refuses a text or a picture has no layout.
    pub fn tokenize(
        &self,
        tokenizer: &Tokenizer,
        images: Option<&ImageProcessor>,
    ) -> Result<TokenizedDocument, DocumentError> {
        let mut write = Writer::new(tokenizer, images);
        match self {
            Self::Plain(pieces) => {
                write.pieces(pieces, true)?;
                write.out.push(tokenizer.special().eos, true);
            }
            Self::Conversation(conversation) => write.turns(conversation)?,
        }
        Ok(write.out)
    }

    /// Like [`Document::tokenize`], but without the end mark: a prompt to continue. After the last turn of a conversation the
    /// assistant speaks.
    ///
    /// # Errors
    /// [`DocumentError`] if the tokenizer refuses a text or a picture has no layout.
    pub fn tokenize_open(
        &self,
        tokenizer: &Tokenizer,
        images: Option<&ImageProcessor>,
    ) -> Result<TokenizedDocument, DocumentError> {
        let mut write = Writer::new(tokenizer, images);
        match self {
            Self::Plain(pieces) => write.pieces(pieces, true)?,
            Self::Conversation(conversation) => {
                write.turns(conversation)?;
                write.speaker(Role::Assistant)?;
            }
        }
        Ok(write.out)
    }
}

/// Appends pieces to a tokenized document.
struct Writer<'a> {
    out: TokenizedDocument,
    tokenizer: &'a Tokenizer,
    images: Option<&'a ImageProcessor>,
}

impl<'a> Writer<'a> {
    /// A document that begins.
    fn new(tokenizer: &'a Tokenizer, images: Option<&'a ImageProcessor>) -> Self {
        let mut out = TokenizedDocument::default();
        out.push(tokenizer.special().bos, false);
        Self { out, tokenizer, images }
    }

    /// The turns in the format for tokenizers without a chat template: `USER: a question` and a line feed.
    fn turns(&mut self, conversation: &Conversation) -> Result<(), DocumentError> {
        for Turn { role, pieces, trained } in &conversation.turns {
            self.speaker(*role)?;
            self.pieces(pieces, *trained)?;
            if *trained {
                self.out.push(self.tokenizer.special().eos, true);
            }
            self.text("\n", false)?;
        }
        Ok(())
    }

    fn speaker(&mut self, role: Role) -> Result<(), DocumentError> {
        self.text(&format!("{}: ", role.name().to_uppercase()), false)
    }

    fn pieces(&mut self, pieces: &[DocumentPiece], trained: bool) -> Result<(), DocumentError> {
        for piece in pieces {
            match piece {
                DocumentPiece::Text(text) => self.text(text, trained)?,
                DocumentPiece::Picture(picture) => self.picture(picture)?,
            }
        }
        Ok(())
    }

    fn text(&mut self, text: &str, trained: bool) -> Result<(), DocumentError> {
        self.out.extend(self.tokenizer.encode(text)?, trained);
        Ok(())
    }

    fn picture(&mut self, picture: &Picture) -> Result<(), DocumentError> {
        let layout = match self.images {
            Some(images) => images.layout_of(picture)?,
            None => ImageLayout::default(),
        };
        let image = self.tokenizer.special().image;
        let (offset, tokens) = (self.out.tokens.len() as u32, layout.tokens as usize);
        self.out.pictures.push(PlacedPicture { offset, picture: picture.clone(), layout });
        self.out.extend(std::iter::repeat_n(image, tokens), false);
        Ok(())
    }
}

/// A document as token ids.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenizedDocument {
    /// Token ids; every picture is a run of image tokens.
    pub tokens: Vec<u32>,
    /// True if the model learns to produce the token, `[tokens]`: all text of a plain document and its end mark, and what the
    /// assistant says in a conversation with the token that ends its turn. Never true for image tokens.
    pub trained: Vec<bool>,
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
    /// Its grids of patches, and its tokens.
    pub layout: ImageLayout,
}

impl TokenizedDocument {
    /// Appends a token.
    pub fn push(&mut self, token: u32, trained: bool) {
        self.extend([token], trained);
    }

    /// Appends tokens that all have a loss, or none.
    pub fn extend(&mut self, tokens: impl IntoIterator<Item = u32>, trained: bool) {
        self.tokens.extend(tokens);
        self.trained.resize(self.tokens.len(), trained);
    }

    /// True if the first `tokens` tokens have one with a loss. The first token of a document is never predicted.
    pub fn trains_within(&self, tokens: usize) -> bool {
        self.trained.iter().take(tokens).skip(1).any(|&trained| trained)
    }

    /// Cuts the document to at most `tokens` tokens and `images` images, and returns true if it was longer. A cut never divides
    /// an image: the first image that does not fit is left out with all that follows.
    pub fn truncate(&mut self, tokens: u32, images: u32) -> bool {
        let end = self.kept_tokens(tokens, images);
        let cut = self.tokens.len() > end;
        self.pictures.retain(|placed| (placed.offset as usize) < end);
        self.tokens.truncate(end);
        self.trained.truncate(end);
        cut
    }

    /// The length that [`TokenizedDocument::truncate`] leaves.
    pub fn kept_tokens(&self, tokens: u32, images: u32) -> usize {
        let fits = |placed: &PlacedPicture| {
            u64::from(placed.offset) + u64::from(placed.layout.tokens) <= u64::from(tokens)
        };
        let mut pictures = self.pictures.iter().enumerate();
        let left_out = pictures.find(|(i, placed)| *i >= images as usize || !fits(placed));
        let end = left_out.map_or(tokens, |(_, placed)| placed.offset.min(tokens));
        self.tokens.len().min(end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(n: u8) -> Picture {
        Picture::Encoded(vec![n].into())
    }

    /// Pictures of 4 tokens.
    fn images() -> ImageProcessor {
        let text = "name = 'm'\nsequence_tokens = 9\n[[module]]\nname = 'v'\nlayers = 1\nhidden = 4\nffn = 4\n\
                    heads = 1\nkind.vit = { image_px = 4, patch_px = 2, merge = 1 }\n";
        ImageProcessor::of_model(&dip_core::ModelSpec::from_toml(text).unwrap()).unwrap()
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
        let tokens = document.tokenize(&tokenizer, Some(&images())).unwrap();
        let s = tokenizer.special();
        let expected = [s.bos, 97, s.image, s.image, s.image, s.image, 98, s.eos];
        assert_eq!(tokens.tokens, expected);
        assert_eq!(tokens.trained, [false, true, false, false, false, false, true, true]);
        let layout = images().fixed().unwrap();
        assert_eq!(tokens.pictures, [PlacedPicture { offset: 2, picture: picture(1), layout }]);
    }

    #[test]
    fn a_conversation_trains_what_the_assistant_says() {
        let tokenizer = Tokenizer::bytes();
        let turn = |role, text: &str| Turn::new(role, vec![DocumentPiece::Text(text.into())]);
        let turns = vec![turn(Role::User, "2+2?"), turn(Role::Assistant, "4")];
        let conversation = Document::Conversation(Conversation { turns });
        let out = conversation.tokenize(&tokenizer, None).unwrap();
        assert_eq!(tokenizer.decode(&out.tokens), "USER: 2+2?\nASSISTANT: 4\n");
        let trained = out.tokens.iter().zip(&out.trained).filter(|(_, trained)| **trained);
        let trained: Vec<u32> = trained.map(|(&token, _)| token).collect();
        assert_eq!(trained, [u32::from(b'4'), tokenizer.special().eos]);
    }

    #[test]
    fn truncation_never_cuts_an_image() {
        let tokenizer = Tokenizer::bytes();
        let document = Document::interleave("a<image>b<image>c", vec![picture(1), picture(2)]);
        let whole = document.unwrap().tokenize(&tokenizer, Some(&images())).unwrap();
        let cut = |tokens, images| {
            let mut d = whole.clone();
            let cut = d.truncate(tokens, images);
            (d.tokens.len(), d.pictures.len(), cut)
        };
        assert_eq!(cut(13, 2), (13, 2, false));
        assert_eq!(cut(12, 2), (12, 2, true));
        assert_eq!(cut(10, 2), (7, 1, true));
        assert_eq!(cut(5, 2), (2, 0, true));
        assert_eq!(cut(13, 1), (7, 1, true));
        assert_eq!(cut(0, 0), (0, 0, true));
    }
}

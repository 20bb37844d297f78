use super::*;
use crate::data::conversation::Role;
use crate::data::packing::Room;
use crate::data::processor::ImageProcessor;
use crate::data::tokenizer::Tokenizer;

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
    let marked = Document::interleave("a<image>b<image>", vec![picture(1), picture(2)]).unwrap();
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
    let expected = [tokenizer.begin()[0], 97, s.image, s.image, s.image, s.image, 98, s.eos];
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
    let conversation = Document::Conversation(Conversation { turns, ..Default::default() });
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
        let cut = d.truncate(Room { tokens, images, patches: 8 });
        (d.tokens.len(), d.pictures.len(), cut)
    };
    assert_eq!(cut(13, 2), (13, 2, false));
    assert_eq!(cut(12, 2), (12, 2, true));
    assert_eq!(cut(10, 2), (7, 1, true));
    assert_eq!(cut(5, 2), (2, 0, true));
    assert_eq!(cut(13, 1), (7, 1, true));
    assert_eq!(cut(0, 0), (0, 0, true));
    let few = Room { tokens: 13, images: 2, patches: 7 };
    assert_eq!(whole.kept_tokens(few), 7, "the patches of two images do not fit");
}

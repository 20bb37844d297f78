use super::*;
use crate::data::conversation::Role;
use crate::data::media::MediaProcessor;
use crate::data::placed::PlacedPicture;
use crate::data::processor::ImageProcessor;
use crate::data::tokenizer::Tokenizer;
use crate::data::visual::Visual;

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
        Document::interleave("a<image>b<image>", vec![picture(1), picture(2)], vec![]).unwrap();
    assert_eq!(marked.marked_text(), "a<image>b<image>");
    assert_eq!(marked.pictures().cloned().collect::<Vec<_>>(), [picture(1), picture(2)]);
    let plain = Document::interleave("b", vec![picture(1), picture(2)], vec![]).unwrap();
    assert_eq!(plain.marked_text(), "<image><image>b");
    assert_eq!(Document::interleave("a<image>", vec![picture(1), picture(2)], vec![]), None);
    assert_eq!(Document::interleave("a<image>", vec![], vec![]), None);
}

#[test]
fn a_picture_is_a_run_of_image_tokens() {
    let tokenizer = Tokenizer::bytes();
    let document = Document::interleave("a<image>b", vec![picture(1)], vec![]).unwrap();
    let tokens = document.tokenize(&tokenizer, &images().into()).unwrap();
    let s = tokenizer.special();
    let expected = [tokenizer.begin()[0], 97, s.image, s.image, s.image, s.image, 98, s.eos];
    assert_eq!(tokens.tokens, expected);
    assert_eq!(tokens.trained, [false, true, false, false, false, false, true, true]);
    let layout = images().fixed().unwrap();
    assert_eq!(
        tokens.pictures,
        [PlacedPicture { offset: 2, visual: Visual::Picture(picture(1)), layout }]
    );
}

#[test]
fn a_conversation_trains_what_the_assistant_says() {
    let tokenizer = Tokenizer::bytes();
    let turn = |role, text: &str| Turn::new(role, vec![DocumentPiece::Text(text.into())]);
    let turns = vec![turn(Role::User, "2+2?"), turn(Role::Assistant, "4")];
    let conversation = Document::Conversation(Conversation { turns, ..Default::default() });
    let out = conversation.tokenize(&tokenizer, &MediaProcessor::default()).unwrap();
    assert_eq!(tokenizer.decode(&out.tokens), "USER: 2+2?\nASSISTANT: 4\n");
    let trained = out.tokens.iter().zip(&out.trained).filter(|(_, trained)| **trained);
    let trained: Vec<u32> = trained.map(|(&token, _)| token).collect();
    assert_eq!(trained, [u32::from(b'4'), tokenizer.special().eos]);
}

#[test]
fn truncation_never_cuts_an_image() {
    let tokenizer = Tokenizer::bytes();
    let document = Document::interleave("a<image>b<image>c", vec![picture(1), picture(2)], vec![]);
    let whole = document.unwrap().tokenize(&tokenizer, &images().into()).unwrap();
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

/// A model whose sounds have a token for 20 milliseconds.
fn ears() -> MediaProcessor {
    let text = "name = 'm'\nsequence_tokens = 9\n[[module]]\nname = 'a'\nlayers = 1\nhidden = 4\nffn = 4\n\
                heads = 1\nkind.audio = { frames_per_second = 50, merge = 1, max_frames = 3 }\n";
    MediaProcessor::of_model(&dip_core::ModelSpec::from_toml(text).unwrap()).unwrap()
}

fn sound(samples: usize) -> Recording {
    Recording::Samples(vec![0.1; samples].into())
}

#[test]
fn marks_place_sounds_beside_pictures() {
    let of = |text, sounds| Document::interleave(text, vec![picture(1)], sounds);
    let both = of("a<audio>b<image>", vec![sound(1)]).unwrap();
    assert_eq!(both.marked_text(), "a<audio>b<image>");
    assert_eq!(both.sounds().count(), 1);
    assert_eq!(of("<image>a", vec![sound(1)]).unwrap().marked_text(), "<audio><image>a");
    assert_eq!(of("<audio>a", vec![sound(1), sound(2)]), None);
    let text = of("the mark <audio>", vec![]).unwrap();
    assert_eq!(text.sounds().count(), 0, "without sounds the mark is text");
    assert_eq!(text.marked_text(), "<image>the mark <audio>");
}

#[test]
fn a_sound_is_a_run_of_sound_tokens_that_no_cut_divides() {
    let tokenizer = Tokenizer::bytes();
    let of = |samples| Document::interleave("a<audio>b", vec![], vec![sound(samples)]).unwrap();
    let tokens = |samples| of(samples).tokenize(&tokenizer, &ears());
    let whole = tokens(700).unwrap();
    let s = tokenizer.special();
    let expected = [tokenizer.begin()[0], 97, s.sound, s.sound, s.sound, 98, s.eos];
    assert_eq!(whole.tokens, expected);
    assert_eq!(whole.trained, [false, true, false, false, false, true, true]);
    assert_eq!((whole.sounds[0].offset, whole.sounds[0].waveform.tokens), (2, 3));
    let long = tokens(100_000).unwrap();
    assert_eq!((long.tokens.len(), long.sounds[0].waveform.samples().unwrap().len()), (7, 960));
    let mut cut = whole.clone();
    assert!(cut.truncate(Room { tokens: 4, images: 9, patches: 9 }));
    assert_eq!((cut.tokens.len(), cut.sounds.len()), (2, 0));
    let error = tokens(0).unwrap_err();
    assert_eq!(error.reason().name(), "broken sound");
}

#[test]
fn a_video_needs_a_token_for_videos() {
    let videos = vec![crate::data::Video::Gif(vec![1].into())];
    let media = DocumentMedia { videos, ..DocumentMedia::default() };
    let document = Document::interleave_media("see <video>", media).unwrap();
    assert_eq!(document.marked_text(), "see <video>");
    let error = document.tokenize(&Tokenizer::bytes(), &images().into()).unwrap_err();
    assert!(error.to_string().contains("0 of 1 videos"), "{error}");
}

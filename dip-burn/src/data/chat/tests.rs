//! Conversations have the tokens that `transformers` gives them, with templates of many models' constructs.

use std::path::{Path, PathBuf};

use minijinja::Value;

use crate::data::conversation::Conversation;
use crate::data::document::Document;
use crate::data::picture::Picture;
use crate::data::samples::{SamplePictures, conversation, field, items, text_field};
use crate::data::skip::SkipReason;
use crate::data::sound::Recording;
use crate::data::tokenizer::Tokenizer;
use crate::data::video::Video;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value, name: &str) -> Vec<Value> {
    items(&field(value, name).unwrap()).unwrap()
}

fn ids(value: &Value, name: &str) -> Vec<u32> {
    list(value, name).into_iter().map(|id| u32::try_from(id).unwrap()).collect()
}

/// A picture for every mention.
struct Endless;

impl SamplePictures for Endless {
    fn next(&mut self) -> Result<Option<Picture>, SkipReason> {
        Ok(None)
    }

    fn named(&mut self, _name: &str) -> Result<Picture, SkipReason> {
        Ok(Picture::Encoded(vec![1].into()))
    }

    fn next_sound(&mut self) -> Result<Option<Recording>, SkipReason> {
        Ok(None)
    }

    fn named_sound(&mut self, _: &str) -> Result<Recording, SkipReason> {
        Err(SkipReason::WrongMarks)
    }

    fn next_video(&mut self) -> Result<Option<Video>, SkipReason> {
        Ok(None)
    }

    fn named_video(&mut self, _: &str) -> Result<Video, SkipReason> {
        Err(SkipReason::WrongMarks)
    }
}

/// The tokenizer and template of a row, as the files of a model.
fn tokenizer(row: &Value, folder: &Path) -> Tokenizer {
    let kind = text_field(row, "tokenizer").unwrap();
    let source = fixtures().join(kind).join("tokenizer.json");
    std::fs::copy(source, folder.join("tokenizer.json")).unwrap();
    let config = serde_json::to_string(&field(row, "special").unwrap()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), config).unwrap();
    let template = text_field(row, "template").unwrap();
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
    let plain = Tokenizer::from_file(folder).unwrap();
    let Tokenizer::HuggingFace(inner) = &plain else { panic!() };
    let image = inner.token_id(&text_field(row, "image").unwrap()).unwrap();
    std::fs::write(folder.join("config.json"), format!("{{\"image_token_id\": {image}}}")).unwrap();
    Tokenizer::from_file(folder).unwrap()
}

/// A conversation whose image parts name a picture.
fn read(case: &Value) -> Conversation {
    let text = serde_json::to_string(case).unwrap();
    let text = text.replace(r#"{"type":"image"}"#, r#"{"type":"image","url":"a"}"#);
    let sample: Value = serde_json::from_str(&text).unwrap();
    let document = conversation(&sample, &mut Endless).unwrap().unwrap();
    let Document::Conversation(conversation) = document else { panic!() };
    conversation
}

#[test]
fn conversations_have_the_tokens_of_transformers() {
    for row in items(&json(&fixtures().join("chats.json"))).unwrap() {
        let name = text_field(&row, "name").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = tokenizer(&row, folder.path());
        for (i, case) in list(&row, "cases").iter().enumerate() {
            let mut conversation = read(case);
            let whole = Document::Conversation(conversation.clone());
            let text = whole.text(&tokenizer).unwrap_or_else(|e| panic!("{name} {i}: {e}"));
            let tokens = tokenizer.encode_marked(&text).unwrap();
            let found: Vec<u32> = tokens.iter().map(|token| token.id).collect();
            let expected = ids(case, "ids");
            // Where a template closes the conversation with no token, the end token follows.
            assert_eq!(found[..expected.len()], expected, "{name} {i}: {:?}", text.text);
            assert!(found.len() == expected.len() || name == "llava", "{name} {i}");
            if field(case, "trained").is_some() {
                let overlaps = |span: &std::ops::Range<usize>| {
                    text.trained.iter().any(|t| span.start < t.end && span.end > t.start)
                };
                let trained = tokens.iter().take(expected.len()).enumerate();
                let trained = trained.filter(|(_, token)| overlaps(&token.span));
                let trained: Vec<u32> = trained.map(|(i, _)| i as u32).collect();
                assert_eq!(
                    trained,
                    ids(case, "trained"),
                    "{name} {i}: {:?} {:?}",
                    text.text,
                    text.trained
                );
            }
            conversation.turns.pop();
            let prompt = Document::Conversation(conversation).prompt(&tokenizer).unwrap();
            let prompt = tokenizer.encode_marked(&prompt).unwrap();
            let prompt: Vec<u32> = prompt.iter().map(|token| token.id).collect();
            assert_eq!(prompt, ids(case, "prompt"), "{name} {i}, prompt");
        }
    }
}

#[test]
fn texts_have_the_tokens_of_transformers() {
    for kind in ["bytes", "pieces", "unigram", "words"] {
        let tokenizer = Tokenizer::from_file(&fixtures().join(kind)).unwrap();
        for case in items(&json(&fixtures().join(kind).join("texts.json"))).unwrap() {
            let text = text_field(&case, "text").unwrap();
            let found = tokenizer.encode(&text);
            if field(&case, "plain").is_none() {
                assert!(found.is_err(), "{kind}: {text:?}");
                continue;
            }
            let found = found.unwrap();
            assert_eq!(found, ids(&case, "plain"), "{kind}: {text:?}");
            let end = if kind == "unigram" { tokenizer.end() } else { Vec::new() };
            let whole = [tokenizer.begin(), &found, &end].concat();
            assert_eq!(whole, ids(&case, "whole"), "{kind}: {text:?}");
        }
    }
}

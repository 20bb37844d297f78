//! JSON samples: a caption, or a conversation with pictures.

use minijinja::value::{Value, ValueKind};

use super::conversation::{Conversation, JsonFields, Role, Turn};
use super::document::{Document, MarkKind, marks};
use super::picture::Picture;
use super::piece::DocumentPiece;
use super::skip::SkipReason;
use super::sound::Recording;
use super::video::Video;

/// Most turns of one conversation.
const MAX_TURNS: usize = 1 << 16;

/// The pictures, sounds and videos of a sample: first those that come with it, then those that its text names.
pub(super) trait SamplePictures {
    /// The next picture that comes with the sample, in order; `None` if there are no more.
    ///
    /// # Errors
    /// The reason to skip the sample.
    fn next(&mut self) -> Result<Option<Picture>, SkipReason>;

    /// The picture of a name in a message: a path or an URL.
    ///
    /// # Errors
    /// The reason to skip the sample.
    fn named(&mut self, name: &str) -> Result<Picture, SkipReason>;

    /// The next sound that comes with the sample, in order; `None` if there are no more.
    ///
    /// # Errors
    /// The reason to skip the sample.
    fn next_sound(&mut self) -> Result<Option<Recording>, SkipReason>;

    /// The sound of a name in a message: a path or an URL.
    ///
    /// # Errors
    /// The reason to skip the sample.
    fn named_sound(&mut self, name: &str) -> Result<Recording, SkipReason>;

    /// The next video that comes with the sample, in order; `None` if there are no more.
    ///
    /// # Errors
    /// The reason to skip the sample.
    fn next_video(&mut self) -> Result<Option<Video>, SkipReason>;

    /// The video of a name in a message: a path.
    ///
    /// # Errors
    /// The reason to skip the sample.
    fn named_video(&mut self, name: &str) -> Result<Video, SkipReason>;
}

/// The conversation of a sample; `None` if it has none.
///
/// Two forms are read, each with either names of fields. LLaVA and ShareGPT have `conversations` of `from` and `value`, with
/// `<image>` where a picture is, `<audio>` where a sound is and `<video>` where a video is; white space around a mark belongs to
/// the mark. OpenAI has `messages` of `role` and `content`, a text or a list of parts `{"type":"text","text":..}`,
/// `{"type":"image"}`, `{"type":"image_url","image_url":{"url":..}}`, `{"type":"audio"}`, `{"type":"audio_url","audio_url":..}` and
/// `{"type":"video","video":..}`. Pictures, sounds and videos that no turn mentions come before the text of the first turn of the
/// user.
///
/// # Errors
/// The reason to skip the sample.
pub(super) fn conversation(
    json: &Value,
    pictures: &mut dyn SamplePictures,
) -> Result<Option<Document>, SkipReason> {
    let lists = ["conversations", "conversation", "messages"];
    let Some(list) = lists.iter().find_map(|name| field(json, name)) else { return Ok(None) };
    let list = items(&list).ok_or(SkipReason::InvalidConversation)?;
    if list.len() > MAX_TURNS {
        return Err(SkipReason::Oversized);
    }
    let turns = list.iter().map(|turn| read_turn(turn, pictures));
    let mut turns = turns.collect::<Result<Vec<_>, _>>()?;
    let system = field(json, "system").filter(|text| text.as_str().is_some_and(|t| !t.is_empty()));
    if let (Some(text), true) = (system, turns.first().is_some_and(|t| t.role != Role::System)) {
        turns.insert(0, Turn::new(Role::System, vec![DocumentPiece::Text(text.to_string())]));
    }
    if !turns.iter().any(|turn| turn.trained) {
        return Err(SkipReason::NoAnswer);
    }
    place_unmentioned(&mut turns, pictures)?;
    let tools = JsonFields::new(tools(json)?);
    Ok(Some(Document::Conversation(Conversation { turns, tools })))
}

/// The tools of a sample: a list, or the text of one.
fn tools(json: &Value) -> Result<Value, SkipReason> {
    let Some(tools) = field(json, "tools") else { return Ok(Value::UNDEFINED) };
    let tools = match tools.as_str() {
        Some(text) if text.trim().is_empty() => return Ok(Value::UNDEFINED),
        Some(text) => serde_json::from_str(text).map_err(|_| SkipReason::InvalidConversation)?,
        None => tools,
    };
    items(&tools).map(|_| tools).ok_or(SkipReason::InvalidConversation)
}

/// A field of an object that is there and not null.
pub(super) fn field(json: &Value, name: &str) -> Option<Value> {
    let value = json.get_attr(name).ok()?;
    (json.kind() == ValueKind::Map && !value.is_undefined() && !value.is_none()).then_some(value)
}

/// A field that is a text.
pub(super) fn text_field(json: &Value, name: &str) -> Option<String> {
    field(json, name)?.as_str().map(str::to_owned)
}

/// The names of the files of a sample in the first of some fields: a text or a list. `None` if they are something else.
pub(super) fn file_names(json: &Value, fields: &[&str]) -> Option<Vec<String>> {
    let Some(names) = fields.iter().find_map(|name| field(json, name)) else {
        return Some(Vec::new());
    };
    let name = |name: &Value| {
        let path = || text_field(name, "path").or_else(|| text_field(name, "url"));
        name.as_str().map(str::to_owned).or_else(path)
    };
    match items(&names) {
        Some(names) => names.iter().map(name).collect(),
        None => name(&names).map(|name| vec![name]),
    }
}

/// The items of a list.
pub(super) fn items(json: &Value) -> Option<Vec<Value>> {
    (json.kind() == ValueKind::Seq).then(|| json.try_iter().ok())?.map(Iterator::collect)
}

/// Puts the remaining pictures, sounds and videos before the first text of the user.
fn place_unmentioned(
    turns: &mut [Turn],
    pictures: &mut dyn SamplePictures,
) -> Result<(), SkipReason> {
    let is_picture = |piece: &DocumentPiece| matches!(piece, DocumentPiece::Picture(_));
    let is_sound = |piece: &DocumentPiece| matches!(piece, DocumentPiece::Sound(_));
    let is_video = |piece: &DocumentPiece| matches!(piece, DocumentPiece::Video(_));
    let (mut shown, mut played, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(picture) = pictures.next()? {
        shown.push(DocumentPiece::Picture(picture));
    }
    while let Some(sound) = pictures.next_sound()? {
        heard.push(DocumentPiece::Sound(sound));
    }
    while let Some(video) = pictures.next_video()? {
        played.push(DocumentPiece::Video(video));
    }
    place_first(turns, heard, is_sound)?;
    place_first(turns, played, is_video)?;
    place_first(turns, shown, is_picture)
}

/// Puts pieces before the first text of the user, unless other pieces of their kind have places of their own.
fn place_first(
    turns: &mut [Turn],
    pieces: Vec<DocumentPiece>,
    is_of_kind: impl Fn(&DocumentPiece) -> bool,
) -> Result<(), SkipReason> {
    if pieces.is_empty() {
        return Ok(());
    }
    let mentions = turns.iter().any(|turn| turn.pieces.iter().any(&is_of_kind));
    let first = turns.iter_mut().find(|turn| turn.role == Role::User && !mentions);
    first.ok_or(SkipReason::WrongMarks)?.pieces.splice(0..0, pieces);
    Ok(())
}

fn read_turn(turn: &Value, pictures: &mut dyn SamplePictures) -> Result<Turn, SkipReason> {
    let role = text_field(turn, "from").or_else(|| text_field(turn, "role"));
    let role = role.as_deref().and_then(Role::from_name).ok_or(SkipReason::UnknownRole)?;
    let (value, content) = (field(turn, "value"), field(turn, "content"));
    let pieces = match (&value, &content) {
        (Some(value), _) => {
            marked(value.as_str().ok_or(SkipReason::InvalidConversation)?, pictures)?
        }
        (None, Some(content)) => match (content.as_str(), items(content)) {
            (Some(text), _) => vec![DocumentPiece::Text(text.to_owned())],
            (None, Some(parts)) => {
                parts.iter().map(|part| read_part(part, pictures)).collect::<Result<_, _>>()?
            }
            (None, None) => return Err(SkipReason::InvalidConversation),
        },
        // A call of a tool may have no content.
        (None, None) if field(turn, "tool_calls").is_some() => Vec::new(),
        (None, None) => return Err(SkipReason::InvalidConversation),
    };
    let mut out = Turn::new(role, pieces);
    // OpenAI's mark of a turn without a loss.
    out.trained &= field(turn, "weight").and_then(|w| f64::try_from(w).ok()) != Some(0.0);
    let known = ["from", "role", "value", "content", "weight"];
    let others = turn.try_iter().into_iter().flatten().filter_map(|key| {
        let name = key.as_str()?.to_owned();
        let value = field(turn, &name).filter(|_| !known.contains(&name.as_str()))?;
        Some((name, value))
    });
    out.fields = JsonFields::new(others.collect());
    Ok(out)
}

/// A text with a picture, sound or video in place of each mark. A sound mark is text where no sound is left.
fn marked(text: &str, pictures: &mut dyn SamplePictures) -> Result<Vec<DocumentPiece>, SkipReason> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (range, kind) in marks(text) {
        let piece = match kind {
            MarkKind::Picture => {
                Some(DocumentPiece::Picture(pictures.next()?.ok_or(SkipReason::WrongMarks)?))
            }
            MarkKind::Video => {
                Some(DocumentPiece::Video(pictures.next_video()?.ok_or(SkipReason::WrongMarks)?))
            }
            MarkKind::Sound => pictures.next_sound()?.map(DocumentPiece::Sound),
        };
        if let Some(piece) = piece {
            pieces.extend(trimmed(&text[start..range.start]));
            pieces.push(piece);
            start = range.end;
        }
    }
    if pieces.is_empty() {
        return Ok(vec![DocumentPiece::Text(text.to_owned())]);
    }
    pieces.extend(trimmed(&text[start..]));
    Ok(pieces)
}

fn trimmed(text: &str) -> Option<DocumentPiece> {
    let text = text.trim();
    (!text.is_empty()).then(|| DocumentPiece::Text(text.to_owned()))
}

fn read_part(part: &Value, pictures: &mut dyn SamplePictures) -> Result<DocumentPiece, SkipReason> {
    let kind = text_field(part, "type");
    match (kind.as_deref(), text_field(part, "text")) {
        (Some("text") | None, Some(text)) => Ok(DocumentPiece::Text(text)),
        (Some("image" | "image_url"), _) => {
            let picture = match named_file(part, &["image_url", "image", "url", "path"]) {
                Some(name) => pictures.named(&name)?,
                None => pictures.next()?.ok_or(SkipReason::WrongMarks)?,
            };
            Ok(DocumentPiece::Picture(picture))
        }
        (Some("audio" | "audio_url" | "input_audio"), _) => {
            let sound =
                match named_file(part, &["audio_url", "audio", "input_audio", "url", "path"]) {
                    Some(name) => pictures.named_sound(&name)?,
                    None => pictures.next_sound()?.ok_or(SkipReason::WrongMarks)?,
                };
            Ok(DocumentPiece::Sound(sound))
        }
        (Some("video" | "video_url"), _) => {
            let video = match named_file(part, &["video_url", "video", "url", "path"]) {
                Some(name) => pictures.named_video(&name)?,
                None => pictures.next_video()?.ok_or(SkipReason::WrongMarks)?,
            };
            Ok(DocumentPiece::Video(video))
        }
        _ => Err(SkipReason::InvalidConversation),
    }
}

/// The path or URL of a part, in one of some fields.
fn named_file(part: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| {
        let value = field(part, name)?;
        let inside = || text_field(&value, "url").or_else(|| text_field(&value, "path"));
        value.as_str().map(str::to_owned).or_else(inside)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use serde_json::json;

    use super::*;

    /// Pictures, sounds and videos that come with a sample.
    struct Media(VecDeque<u8>, VecDeque<usize>, VecDeque<u8>);

    fn video(n: u8) -> Video {
        Video::Gif(vec![n].into())
    }

    fn sound(samples: usize) -> Recording {
        Recording::Samples(vec![0.0; samples].into())
    }

    fn picture(n: u8) -> Picture {
        Picture::Encoded(vec![n].into())
    }

    impl SamplePictures for Media {
        fn next(&mut self) -> Result<Option<Picture>, SkipReason> {
            Ok(self.0.pop_front().map(picture))
        }

        fn named(&mut self, name: &str) -> Result<Picture, SkipReason> {
            Ok(picture(name.len() as u8))
        }

        fn next_sound(&mut self) -> Result<Option<Recording>, SkipReason> {
            Ok(self.1.pop_front().map(sound))
        }

        fn named_sound(&mut self, name: &str) -> Result<Recording, SkipReason> {
            Ok(sound(name.len()))
        }

        fn next_video(&mut self) -> Result<Option<Video>, SkipReason> {
            Ok(self.2.pop_front().map(video))
        }

        fn named_video(&mut self, name: &str) -> Result<Video, SkipReason> {
            Ok(video(name.len() as u8))
        }
    }

    fn read(json: serde_json::Value) -> Result<Vec<(Role, String, bool)>, SkipReason> {
        read_with(json, &[], &[])
    }

    fn read_with(
        json: serde_json::Value,
        sounds: &[usize],
        videos: &[u8],
    ) -> Result<Vec<(Role, String, bool)>, SkipReason> {
        let (sounds, videos) = (sounds.to_vec().into(), videos.to_vec().into());
        let mut media = Media([1, 2].into(), sounds, videos);
        let document = conversation(&Value::from_serialize(json), &mut media)?.unwrap();
        let Document::Conversation(conversation) = document else { panic!("no conversation") };
        let marked = |turn: &Turn| Document::Plain(turn.pieces.clone()).marked_text();
        let turns = conversation.turns.iter();
        Ok(turns.map(|turn| (turn.role, marked(turn), turn.trained)).collect())
    }

    #[test]
    fn marks_of_llava_become_pictures() {
        let turns = read(json!({"conversations": [
            {"from": "human", "value": "<image>\n What is it?"},
            {"from": "gpt", "value": " A ring."},
            {"from": "human", "value": "And now? <image>"},
            {"from": "gpt", "value": "A cross."}]}));
        let expected = [
            (Role::User, "<image>What is it?", false),
            (Role::Assistant, " A ring.", true),
            (Role::User, "And now?<image>", false),
            (Role::Assistant, "A cross.", true),
        ];
        assert_eq!(turns.unwrap(), expected.map(|(role, text, t)| (role, text.to_owned(), t)));
    }

    #[test]
    fn parts_of_openai_become_pieces() {
        let turns = read(json!({"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "<image> is text"},
                {"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "image", "image": "b"}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            {"role": "assistant", "content": "No.", "weight": 0}]}))
        .unwrap();
        assert_eq!(turns[1].1, "<image><image> is text<image><image><image>");
        assert_eq!(turns.iter().map(|t| t.2).collect::<Vec<_>>(), [false, false, true, false]);
    }

    #[test]
    fn sounds_have_marks_and_parts_like_pictures() {
        let turns = read_with(
            json!({"conversations": [
            {"from": "human", "value": "<audio>\nWhat is it? <image> and <image>"},
            {"from": "gpt", "value": "<audio> is the mark."}]}),
            &[1],
            &[],
        )
        .unwrap();
        assert_eq!(turns[0].1, "<audio>What is it?<image>and<image>");
        assert_eq!(turns[1].1, "<audio> is the mark.", "no sound is left");
        let turns = read_with(
            json!({"messages": [
            {"role": "user", "content": [{"type": "audio"}, {"type": "image"}, {"type": "image"},
                {"type": "audio_url", "audio_url": "a.wav"}, {"type": "text", "text": "Which?"}]},
            {"role": "assistant", "content": "Both."}]}),
            &[1],
            &[],
        )
        .unwrap();
        assert_eq!(turns[0].1, "<audio><image><image><audio>Which?");
    }

    #[test]
    fn videos_have_marks_and_parts_like_pictures() {
        let llava = |first: &str| {
            let turns = json!({"conversations": [
                {"from": "human", "value": first}, {"from": "gpt", "value": "It moves."}]});
            read_with(turns, &[], &[1])
        };
        let turns = llava("<video>\nWhat is it? <image> and <image>").unwrap();
        assert_eq!(turns[0].1, "<video>What is it?<image>and<image>");
        assert_eq!(llava("What?").unwrap()[0].1, "<image><image><video>What?");
        assert_eq!(llava("<video><video>").unwrap_err(), SkipReason::WrongMarks);
        let turns = read_with(
            json!({"messages": [
            {"role": "user", "content": [{"type": "video"}, {"type": "image"}, {"type": "image"},
                {"type": "video", "video": "a.mp4"}, {"type": "text", "text": "Which?"}]},
            {"role": "assistant", "content": "Both."}]}),
            &[],
            &[1],
        )
        .unwrap();
        assert_eq!(turns[0].1, "<video><image><image><video>Which?");
    }

    #[test]
    fn pictures_without_marks_come_before_the_first_question() {
        let turns = read(json!({"system": "Be brief.", "conversations": [
            {"from": "human", "value": "Which?"}, {"from": "gpt", "value": "Both."}]}))
        .unwrap();
        assert_eq!(
            (turns[0].1.as_str(), turns[1].1.as_str()),
            ("Be brief.", "<image><image>Which?")
        );
    }

    #[test]
    fn other_samples_are_skipped_with_a_reason() {
        let turn = |from, value| json!({"from": from, "value": value});
        for (list, reason) in [
            (json!([turn("human", "<image>")]), SkipReason::NoAnswer),
            (json!([turn("gpt", "<image><image><image>")]), SkipReason::WrongMarks),
            (json!([turn("gpt", "<image>")]), SkipReason::WrongMarks),
            (json!([turn("alien", "")]), SkipReason::UnknownRole),
            (json!([{"from": "gpt", "value": 1}]), SkipReason::InvalidConversation),
            (json!([3]), SkipReason::UnknownRole),
            (json!({}), SkipReason::InvalidConversation),
        ] {
            assert_eq!(read(json!({ "conversations": list })).unwrap_err(), reason);
        }
    }
}

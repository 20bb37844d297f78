//! Parquet files in the layout of the Hugging Face hub: pictures, sounds and videos are structs of `bytes` and `path`, texts and
//! conversations columns.
//!
//! Rows can only be read in order, so they are copied into a temporary file: the media as they are, all else as JSON.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::file::reader::SerializedFileReader;
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row};
use serde_json::{Map, Value};

use super::index::{Index, Member, Place, SampleIndex};
use crate::data::error::{BoxError, DataError};

/// Most rows of one shard.
const MAX_ROWS: usize = 1 << 22;
/// Rows that are decoded at once.
const ROWS_AT_ONCE: usize = 16;

/// Copies the rows of a Parquet file into a temporary file.
///
/// # Errors
/// [`DataError`] names a file without readable rows. Damage in the middle only sets [`Index::broken`].
pub(super) fn unpack(path: &Path, file: File) -> Result<(File, Index), DataError> {
    let wrong = |source: BoxError| DataError::NotAShard {
        path: path.to_owned(),
        what: format!("its Parquet data cannot be read ({source})"),
    };
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut copy = Copy::new().map_err(io)?;
    let mut rows = guarded(|| {
        let reader = SerializedFileReader::new(file)?;
        Ok(RowIter::from_file_into(Box::new(reader)).with_batch_size(ROWS_AT_ONCE))
    })
    .map_err(wrong)?;
    loop {
        match guarded(|| Ok(rows.next().transpose()?)) {
            Ok(None) => break,
            Ok(Some(row)) if copy.index.samples.len() < MAX_ROWS => copy.row(row).map_err(io)?,
            Err(source) if copy.index.samples.is_empty() => return Err(wrong(source)),
            Ok(Some(_)) | Err(_) => {
                copy.index.broken = true;
                break;
            }
        }
    }
    copy.finish().map_err(io)
}

/// Runs a step of the Parquet reader; a panic is an error.
fn guarded<T>(step: impl FnOnce() -> Result<T, BoxError>) -> Result<T, BoxError> {
    let panicked = |_| Err("the reader panicked".into());
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(panicked)
}

/// The copy of the rows so far.
struct Copy {
    out: BufWriter<File>,
    at: u64,
    index: Index,
}

impl Copy {
    fn new() -> std::io::Result<Self> {
        let out = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        Ok(Self { out, at: 0, index: Index::default() })
    }

    fn row(&mut self, row: Row) -> std::io::Result<()> {
        let mut members = Vec::new();
        let mut json = Map::new();
        for (name, field) in row.into_columns() {
            let mut media = Vec::new();
            take_media(&name, &field, &mut media);
            if media.is_empty() {
                json.insert(name, transposed(value(&field)));
                continue;
            }
            for bytes in media {
                let format = media_format(bytes);
                let extension = match members.len() {
                    0 => format.into(),
                    number => format!("{number}.{format}").into(),
                };
                members.push(Member { extension, place: Some(self.write(bytes)?) });
            }
            // The name says whether an animation is a video.
            if name.starts_with("video") {
                json.insert("video".into(), Value::Null);
            }
        }
        let json = Value::Object(json).to_string();
        let place = Some(self.write(json.as_bytes())?);
        members.push(Member { extension: "json".into(), place });
        let stem = format!("row {}", self.index.samples.len()).into();
        self.index.samples.push(SampleIndex { stem, members });
        Ok(())
    }

    fn write(&mut self, content: &[u8]) -> std::io::Result<Place> {
        self.out.write_all(content)?;
        let place = Place { offset: self.at, bytes: content.len() as u64 };
        self.at += place.bytes;
        Ok(place)
    }

    fn finish(self) -> std::io::Result<(File, Index)> {
        let file = self.out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok((file, self.index))
    }
}

/// Names of columns of plain bytes, and how the names of others begin.
const MEDIA: [&str; 5] = ["bytes", "image", "audio", "sound", "video"];

/// The format of a picture, sound or video by its first bytes, as the end of the name of a member. Whatever is unknown counts as a
/// picture, which is refused with a reason if it is none.
fn media_format(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => "wav",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', b' ', ..] => "avi",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "webp",
        [b'f', b'L', b'a', b'C', ..] => "flac",
        [b'O', b'g', b'g', b'S', ..] => "ogg",
        [b'I', b'D', b'3', ..] | [0xff, 0xe0..=0xff, ..] => "mp3",
        [b'G', b'I', b'F', b'8', ..] => "gif",
        [0x1a, 0x45, 0xdf, 0xa3, ..] => "webm",
        [_, _, _, _, b'f', b't', b'y', b'p', brand @ ..] => match brand {
            // Still pictures share the container of videos.
            [b'a', b'v', b'i', b'f', ..] => "avif",
            [b'h', b'e', b'i' | b'v', ..] | [b'm', b'i', b'f', b'1', ..] => "heic",
            _ => "mp4",
        },
        _ => "png",
    }
}

/// Adds the bytes of the media of a column: one struct with `bytes`, a list of them, or plain bytes in a column named for it.
fn take_media<'a>(name: &str, field: &'a Field, out: &mut Vec<&'a [u8]>) {
    match field {
        Field::Bytes(bytes) if MEDIA.iter().any(|media| name.starts_with(media)) => {
            out.push(bytes.data());
        }
        Field::Group(row) => {
            let columns = row.get_column_iter().filter(|(name, _)| *name == "bytes");
            columns.for_each(|(name, field)| take_media(name, field, out));
        }
        Field::ListInternal(list) => {
            list.elements().iter().for_each(|element| take_media(name, element, out));
        }
        _ => {}
    }
}

fn value(field: &Field) -> Value {
    match field {
        Field::Bool(flag) => (*flag).into(),
        Field::Byte(n) => (*n).into(),
        Field::Short(n) => (*n).into(),
        Field::Int(n) => (*n).into(),
        Field::Long(n) => (*n).into(),
        Field::UByte(n) => (*n).into(),
        Field::UShort(n) => (*n).into(),
        Field::UInt(n) => (*n).into(),
        Field::ULong(n) => (*n).into(),
        Field::Float(x) => (*x).into(),
        Field::Double(x) => (*x).into(),
        Field::Str(text) => text.as_str().into(),
        // Some writers do not mark texts as such.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(row) => {
            let fields = row.get_column_iter();
            Value::Object(fields.map(|(name, field)| (name.clone(), value(field))).collect())
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        _ => Value::Null,
    }
}

/// A struct of lists as a list of structs: the form in which `datasets` stores sequences of objects.
fn transposed(json: Value) -> Value {
    let Value::Object(fields) = &json else { return json };
    let lists: Option<Vec<(&String, &Vec<Value>)>> =
        fields.iter().map(|(name, list)| Some((name, list.as_array()?))).collect();
    let Some(lists) = lists else { return json };
    let Some(length) = lists.first().map(|(_, list)| list.len()) else { return json };
    if lists.iter().any(|(_, list)| list.len() != length) {
        return json;
    }
    let item = |i: usize| lists.iter().map(move |&(name, list)| (name.clone(), list[i].clone()));
    (0..length).map(|i| Value::Object(item(i).collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_are_told_by_their_first_bytes() {
        let ends = |start: &str| media_format(start.as_bytes());
        let riff = ["RIFF....WAVE", "RIFF....WEBP", "RIFF....AVI "].map(ends);
        assert_eq!(riff, ["wav", "webp", "avi"]);
        let boxes = ["....ftypisom", "....ftypqt  ", "....ftypavif", "....ftypheic"].map(ends);
        assert_eq!(boxes, ["mp4", "mp4", "avif", "heic"]);
        assert_eq!(
            ["fLaC", "OggS", "ID3", "GIF89a", ""].map(ends),
            ["flac", "ogg", "mp3", "gif", "png"]
        );
        let bytes = [&[0xff, 0xfb, 0x90][..], &[0xff, 0xd8, 0xff], &[0x89, b'P', b'N', b'G']];
        assert_eq!(bytes.map(media_format), ["mp3", "png", "png"]);
    }

    #[test]
    fn a_struct_of_lists_becomes_a_list_of_structs() {
        let json = serde_json::json!({"from": ["a", "b"], "value": [1, 2]});
        let expected = serde_json::json!([{"from": "a", "value": 1}, {"from": "b", "value": 2}]);
        assert_eq!(transposed(json), expected);
        let other = serde_json::json!({"from": ["a"], "value": 1});
        assert_eq!(transposed(other.clone()), other);
    }
}

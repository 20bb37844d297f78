//! Every format of shards, and members that are not read.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use super::*;
use crate::data::picture::Picture;

fn png(grey: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(2, 2, [grey; 3].into());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn header(bytes: &[u8]) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header
}

fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        tar.append_data(&mut header(bytes), name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

fn open(path: &Path) -> WebDataset {
    let config = WebDatasetConfig { shuffle_buffer: 1, ..WebDatasetConfig::default() };
    WebDataset::open(&[path.to_owned()], config).unwrap()
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The texts of an epoch, and the names of what was skipped.
fn epoch(mut data: WebDataset) -> (Vec<String>, Vec<(SkipReason, String)>) {
    let documents = std::iter::from_fn(|| data.next_in_epoch().unwrap());
    let texts = documents.map(|document| document.marked_text()).collect();
    let skipped = data.first_skipped().into_iter().map(|s| (s.reason, s.name)).collect();
    (texts, skipped)
}

const CHAT: &str = r#"{"image": "pictures/a.png", "conversations": [
    {"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Grey."}]}"#;

#[test]
fn compressed_tars_are_read_and_damage_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let tar = tar_of(&[("a.txt", b"first"), ("b.txt", b"second"), ("c.txt", &[67; 9000])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(
        Cursor::new(&tar),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    for (name, packed) in [("a.tar.gz", &gzip), ("a.tar.zst", &zstd), ("odd name", &gzip)] {
        let (texts, skipped) = epoch(open(&written(folder.path(), name, packed)));
        assert_eq!((texts.len(), texts[1].as_str(), skipped.len()), (3, "second", 0), "{name}");
    }
    let cut = written(folder.path(), "cut.tar.gz", &gzip[..gzip.len() - 12]);
    let (_, skipped) = epoch(open(&cut));
    assert_eq!(skipped[0].0, SkipReason::BrokenShard);
}

#[test]
fn json_files_name_the_pictures_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("pictures")).unwrap();
    written(folder.path(), "pictures/a.png", &png(1));
    let caption = r#"{"images": ["pictures/a.png", "pictures/a.png"], "text": "two"}"#;
    let inline = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, png(2));
    let parts = format!(
        r#"{{"messages": [{{"role": "user", "content": [{{"type": "image_url", "image_url": {{"url": "data:image/png;base64,{inline}"}}}},
        {{"type": "text", "text": "Colour?"}}]}}, {{"role": "assistant", "content": "Grey."}}]}}"#
    );
    let outside = CHAT.replace("pictures/", "../");
    let missing = CHAT.replace("a.png", "b.png");
    let remote = CHAT.replace("pictures/", "https://a/");
    let samples = [CHAT, caption, &parts, &outside, &missing, &remote, "{"];
    let samples = samples.map(|sample| sample.replace('\n', " ").replace("Wh", "\\nWh"));
    let lines = written(folder.path(), "a.jsonl", samples.join("\n").as_bytes());
    let (texts, skipped) = epoch(open(&lines));
    assert_eq!(texts, ["<image>What?Grey.", "<image><image>two", "<image>Colour?Grey."]);
    let reasons = [
        (SkipReason::OutsidePicture, "a.jsonl: sample 3".to_owned()),
        (SkipReason::MissingPicture, "a.jsonl: sample 4".to_owned()),
        (SkipReason::RemotePicture, "a.jsonl: sample 5".to_owned()),
        (SkipReason::InvalidJson, "a.jsonl: sample 6".to_owned()),
    ];
    assert_eq!(skipped, reasons);
    let array = format!("\u{feff}[{}]", samples[..3].join(",\n"));
    let array = written(folder.path(), "a.json", array.as_bytes());
    assert_eq!(epoch(open(&array)).0, texts);
    // The folder of pictures may be elsewhere.
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = written(elsewhere.path(), "a.jsonl", samples[0].as_bytes());
    let folders = Folders { images: Some(folder.path().to_owned()), ..Folders::default() };
    let config = WebDatasetConfig { folders, ..WebDatasetConfig::default() };
    assert_eq!(epoch(WebDataset::open(&[moved], config).unwrap()).0, texts[..1]);
}

#[test]
fn json_files_name_the_videos_of_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a.mp4", b"bytes");
    let samples = [
        r#"{"video": "a.mp4", "text": "see <video> move"}"#,
        r#"{"videos": ["a.mp4", "a.mp4"], "text": "two"}"#,
        r#"{"messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]},
           {"role": "assistant", "content": "A dot."}]}"#,
        r#"{"video": "a.txt", "text": "<video>"}"#,
        r#"{"video": "../a.mp4", "text": "<video>"}"#,
        r#"{"video": "https://a/a.mp4", "text": "<video>"}"#,
    ];
    let lines = samples.map(|sample| sample.replace('\n', " ")).join("\n");
    let (texts, skipped) = epoch(open(&written(folder.path(), "a.jsonl", lines.as_bytes())));
    assert_eq!(texts, ["see <video> move", "<video><video>two", "<video>A dot."]);
    let reasons: Vec<SkipReason> = skipped.into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(
        reasons,
        [SkipReason::MissingVideo, SkipReason::OutsidePicture, SkipReason::RemotePicture]
    );
}

#[test]
fn members_of_a_sample_need_not_be_adjacent() {
    let folder = tempfile::tempdir().unwrap();
    let chat = CHAT.replace('\n', " ").replace("> ", ">");
    let (a, b) = (png(1), png(2));
    let mut tar = tar::Builder::new(Vec::new());
    let mut append = |name: &str, bytes: &[u8]| {
        tar.append_data(&mut header(bytes), name, bytes).unwrap();
    };
    append("all/a.png", &a);
    append("all/b.png", &b);
    append("all/a.json", chat.as_bytes());
    append("all/b.txt", b"caption");
    // A mask is no picture of the text.
    append("all/b.seg.png", &a);
    // The same key again is another sample.
    append("all/b.txt", b"text");
    append("all/c.txt", b"linked");
    append("all/d.txt", b"sparse");
    append("all/e.txt", b"an animation");
    append("all/e.avif", b"\0\0\0 ftypavif");
    append("all/f.txt", b"nowhere");
    let mut link = header(b"");
    link.set_entry_type(tar::EntryType::Link);
    tar.append_link(&mut link, "all/c.png", "all/a.png").unwrap();
    tar.append_link(&mut link, "all/f.png", "all/z.png").unwrap();
    let mut sparse = header(&a);
    sparse.set_entry_type(tar::EntryType::GNUSparse);
    tar.append_data(&mut sparse, "all/d.png", &a[..]).unwrap();
    let path = written(folder.path(), "a.tar", &tar.into_inner().unwrap());
    let (texts, skipped) = epoch(open(&path));
    assert_eq!(texts, ["<image>What?Grey.", "<image>caption", "text", "<image>linked"]);
    let unreadable = |name: &str| (SkipReason::UnreadableMember, format!("a.tar: all/{name}"));
    let broken = (SkipReason::UnsupportedPicture, "a.tar: all/e".to_owned());
    assert_eq!(skipped, [unreadable("d"), broken, unreadable("f")]);
}

#[test]
fn shards_may_join_a_run_but_not_change() {
    let folder = tempfile::tempdir().unwrap();
    let shard = |name: &str, text: &[u8]| {
        written(folder.path(), name, &tar_of(&[("a.txt", text), ("b.txt", text)]))
    };
    shard("b.tar", b"b");
    shard("c.tar", b"c");
    let data = || WebDataset::open(&[folder.path().to_owned()], WebDatasetConfig::default());
    let mut whole = data().unwrap();
    let first = whole.next_document().unwrap();
    let position = whole.position();
    let rest: Vec<_> = (0..3).map(|_| whole.next_document().unwrap()).collect();
    // `a.tar` comes first in the folder, and joins with the next epoch.
    shard("a.tar", b"a");
    let mut joined = data().unwrap();
    joined.restore(&position).unwrap();
    let again: Vec<_> = (0..3).map(|_| joined.next_document().unwrap()).collect();
    assert_eq!(again, rest);
    let next: Vec<String> = (0..6).map(|_| joined.next_document().unwrap().marked_text()).collect();
    assert_eq!(next.iter().filter(|text| *text == "a").count(), 2);
    assert!(first.marked_text() != "a");
    // The same name and length.
    shard("c.tar", b"x");
    assert!(matches!(data().unwrap().restore(&position), Err(DataError::Position(_))));
}

#[cfg(feature = "parquet")]
#[test]
fn rows_of_parquet_files_are_samples() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet/chats.parquet");
    let (texts, skipped) = epoch(open(&path));
    assert_eq!(texts[0], "<image>What is it?A red square.");
    assert_eq!(texts.len(), 4);
    assert_eq!(skipped.len(), 0, "{skipped:?}");
}

#[cfg(not(feature = "remote"))]
#[test]
fn urls_need_their_feature() {
    let config = WebDatasetConfig::default();
    let error = WebDataset::open(&["s3://bucket/a.tar".into()], config).unwrap_err().to_string();
    assert!(error.contains("s3://bucket/a.tar") && error.contains("feature `remote`"), "{error}");
}

/// Sounds and animations in columns of bytes.
#[cfg(feature = "parquet")]
#[test]
fn parquet_files_have_sounds_and_videos() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet/media.parquet");
    let config = || WebDatasetConfig { shuffle_buffer: 1, ..WebDatasetConfig::default() };
    let mut documents = WebDataset::open(std::slice::from_ref(&path), config()).unwrap();
    let first = documents.next_in_epoch().unwrap().unwrap();
    assert_eq!((first.marked_text().as_str(), first.sounds().count()), ("<audio>A tone.", 1));
    let second = documents.next_in_epoch().unwrap().unwrap();
    assert_eq!((second.marked_text().as_str(), second.videos().count()), ("<video>It moves.", 1));
    let mut videos = WebDataset::open_videos(&[path], config()).unwrap();
    let found = videos.next_in_epoch().unwrap().unwrap();
    assert_eq!(found.caption, "It moves.");
    assert!(
        matches!(found.video, crate::data::Video::Gif(_)),
        "the row without a video is skipped"
    );
}

#[cfg(not(feature = "parquet"))]
#[test]
fn parquet_files_need_their_feature() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "a.parquet", b"PAR1 and more");
    let error = open(&path).next_document().unwrap_err().to_string();
    assert!(error.contains("a.parquet") && error.contains("feature `parquet`"), "{error}");
}

#[test]
fn a_picture_in_a_message_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let inline = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, png(7));
    let line = format!(r#"{{"image": "data:image/png;base64,{inline}", "caption": "grey"}}"#);
    let mut data = open(&written(folder.path(), "a.jsonl", line.as_bytes()));
    let document = data.next_in_epoch().unwrap().unwrap();
    let Some(Picture::Encoded(bytes)) = document.pictures().next() else { panic!() };
    assert_eq!(bytes.bytes().unwrap()[..], png(7));
}

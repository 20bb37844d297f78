use std::collections::BTreeSet;
use std::fs::File;

use std::path::Path;

use super::*;
use crate::data::toy::{DataSplit, ScenesConfig, write_scene_shards};

/// A shard of text members.
fn shard(folder: &Path, name: &str, members: &[(&str, &[u8])]) -> PathBuf {
    let path = folder.join(name);
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.finish().unwrap();
    path
}

fn open(path: &Path) -> WebDataset {
    WebDataset::open(&[path.to_owned()], WebDatasetConfig::default()).unwrap()
}

#[test]
fn every_sample_comes_once_an_epoch_in_an_order_of_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let scenes = ScenesConfig { seed: 1, split: DataSplit::Train };
    write_scene_shards(folder.path(), scenes, 50, 20, 8).unwrap();
    let epoch = |seed| {
        let config = WebDatasetConfig { seed, shuffle_buffer: 8, ..Default::default() };
        let mut data = WebDataset::open(&[folder.path().to_owned()], config).unwrap();
        std::iter::from_fn(|| data.next_in_epoch().unwrap())
            .map(|d| d.marked_text())
            .collect::<Vec<_>>()
    };
    let (a, b, again) = (epoch(1), epoch(2), epoch(1));
    assert_eq!((a.len(), &a), (50, &again));
    assert_ne!(a, b);
    assert_eq!(a.iter().collect::<BTreeSet<_>>(), b.iter().collect());
}

#[test]
fn broken_samples_are_skipped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(
        folder.path(),
        "a.tar",
        &[
            ("good.txt", b"words"),
            ("lonely.png", b"not a picture"),
            ("marks.txt", b"<image> and <image>"),
            ("broken.png", b"not a picture"),
            ("broken.txt", b"a caption"),
            ("latin.txt", b"\xff\xfe"),
            ("json.json", b"{\"caption\": \"from json\"}"),
            ("wrong.json", b"{"),
        ],
    );
    let mut data = open(&path);
    let mut texts = Vec::new();
    while let Some(document) = data.next_in_epoch().unwrap() {
        texts.push(document.marked_text());
    }
    texts.sort();
    assert_eq!(texts, ["from json", "words"]);
    assert_eq!(data.skipped().total(), 5);
}

#[test]
fn what_is_not_a_tar_names_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.tar");
    std::fs::write(&path, vec![7; 2048]).unwrap();
    let error = WebDataset::open(std::slice::from_ref(&path), WebDatasetConfig::default());
    let error = error.unwrap_err().to_string();
    assert!(error.contains("picture.tar") && error.contains("not a shard"), "{error}");
    let missing = folder.path().join("missing.tar");
    let error = WebDataset::open(&[missing], WebDatasetConfig::default()).unwrap_err();
    assert!(error.to_string().contains("missing.tar"));
}

#[test]
fn data_without_a_usable_sample_ends_in_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(folder.path(), "a.tar", &[("a.png", b"?"), ("b.png", b"?")]);
    let error = open(&path).next_document().unwrap_err().to_string();
    assert!(error.contains("a.tar") && error.contains("no usable sample"), "{error}");
}

#[test]
fn a_truncated_shard_gives_its_complete_samples() {
    let folder = tempfile::tempdir().unwrap();
    let path = shard(folder.path(), "a.tar", &[("a.txt", b"first"), ("b.txt", &[65; 5000])]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..2048]).unwrap();
    let mut data = open(&path);
    assert_eq!(data.next_in_epoch().unwrap().unwrap().marked_text(), "first");
    assert_eq!(data.next_in_epoch().unwrap(), None);
    assert_eq!(data.skipped().total(), 1);
}

#[test]
fn a_gif_is_a_video_where_the_text_has_a_mark_for_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    for red in [10, 200] {
        let image = image::RgbaImage::from_pixel(8, 8, image::Rgba([red, 0, 0, 255]));
        encoder.encode_frame(image::Frame::new(image)).unwrap();
    }
    drop(encoder);
    let turns = br#"{"messages":[{"role":"user","content":[{"type":"video"},{"type":"text","text":"What moves?"}]},
        {"role":"assistant","content":"A dot."}]}"#;
    let members: [(&str, &[u8]); 7] = [
        ("a.txt", b"see <video> move"),
        ("a.gif", &gif),
        ("b.txt", b"a still"),
        ("b.gif", &gif),
        ("c.json", turns),
        ("c.mp4", b"bytes"),
        ("d.txt", b"<video><video>"),
    ];
    let path = shard(folder.path(), "a.tar", &members);
    let config = WebDatasetConfig { shuffle_buffer: 1, ..Default::default() };
    let mut data = WebDataset::open(&[path], config).unwrap();
    let texts: BTreeSet<String> = std::iter::from_fn(|| data.next_in_epoch().unwrap())
        .map(|document| document.marked_text())
        .collect();
    let expected = ["<image>a still", "<video>What moves?A dot.", "see <video> move"];
    assert_eq!(texts, expected.map(str::to_owned).into());
}

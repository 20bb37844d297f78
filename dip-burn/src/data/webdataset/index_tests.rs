//! With an index, data are the same and media stay closed until they are decoded.

use std::fs::{File, FileTimes};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use dip_core::ModelSpec;

use super::*;
use crate::data::{
    DecodedBatch, Loader, LoaderConfig, LoaderPosition, MediaProcessor, Mixture, MixturePart,
    PackConfig, PackedBatch, Tokenizer,
};

/// A model that sees pictures of any size and videos, and hears.
const MODEL: &str = "name = 'm'\nsequence_tokens = 320\nmax_images = 8\nmax_patches = 1024\n
[[module]]\nname = 'v'\nlayers = 1\nhidden = 16\nffn = 16\nheads = 1\n
kind.vit = { image_px = 16, patch_px = 2, merge = 2, tower = 'qwen2_vl', native = { min_pixels = 64, max_pixels = 512 } }\n
[[module]]\nname = 'a'\nlayers = 1\nhidden = 8\nffn = 8\nheads = 1\n
kind.audio = { frames_per_second = 50, max_frames = 30, mel_bands = 4, merge = 2 }\n";

fn encoded(width: u32, height: u32, grey: u8, format: image::ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = image::RgbImage::from_pixel(width, height, [grey; 3].into());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn gif(frames: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for red in 0..frames {
        let image = image::RgbaImage::from_pixel(12, 8, image::Rgba([red, 0, 0, 255]));
        encoder.encode_frame(image::Frame::new(image)).unwrap();
    }
    drop(encoder);
    bytes
}

fn wav(samples: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let (channels, sample_rate) = (1, 16_000);
    let (bits_per_sample, sample_format) = (16, hound::SampleFormat::Int);
    let spec = hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format };
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    (0..samples).for_each(|i| writer.write_sample((i % 99) as i16 * 99).unwrap());
    writer.finalize().unwrap();
    bytes.into_inner()
}

/// The members of samples of many kinds, among them some that are skipped.
fn members() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for i in 0..60u32 {
        let mut add = |end: &str, bytes: Vec<u8>| all.push((format!("{i:03}.{end}"), bytes));
        let (width, height) = (5 + i % 23, 4 + i * 7 % 19);
        match i % 10 {
            0 => add("txt", format!("text alone {i}").into()),
            1 => {
                add("gif", gif(2 + i as u8 % 5));
                add("txt", format!("<video> moves {i}").into());
            }
            2 => {
                add("wav", wav(500 + 97 * i));
                add("txt", format!("heard {i}").into());
            }
            3 => {
                add("0.png", encoded(width, height, 9, image::ImageFormat::Png));
                add("1.jpg", encoded(height, width, 99, image::ImageFormat::Jpeg));
                let turns = r#"{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]},
                    {"role": "assistant", "content": "Two."}]}"#;
                add("json", turns.into());
            }
            4 => {
                add("webp", encoded(width, height, 7, image::ImageFormat::WebP));
                add("txt", format!("a still {i}").into());
            }
            5 if i < 30 => {
                add("jpg", b"no picture".to_vec());
                add("txt", b"broken".to_vec());
            }
            _ => {
                add("jpg", encoded(width, height, i as u8, image::ImageFormat::Jpeg));
                add("txt", format!("see <image> {i}").into());
            }
        }
    }
    all
}

fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

/// JSON Lines beside a folder of the media of `members`.
fn json_lines(folder: &Path, members: &[(String, Vec<u8>)]) -> PathBuf {
    let mut lines = String::new();
    std::fs::create_dir_all(folder.join("media")).unwrap();
    for (name, bytes) in members {
        let (stem, end) = name.split_once('.').unwrap();
        let field = match end {
            "jpg" | "webp" => "image",
            "wav" => "audio",
            "gif" => "video",
            _ => continue,
        };
        std::fs::write(folder.join("media").join(name), bytes).unwrap();
        lines += &format!("{{\"{field}\": \"media/{name}\", \"caption\": \"of {stem}\"}}\n");
    }
    let path = folder.join("lines.jsonl");
    std::fs::write(&path, lines).unwrap();
    path
}

fn loader(source: Box<dyn DataSource>) -> Loader {
    let model = ModelSpec::from_toml(MODEL).unwrap();
    let tokenizer = Arc::new(Tokenizer::bytes());
    let pack = PackConfig::new(&model, tokenizer.special()).unwrap();
    let media = MediaProcessor::of_model(&model).unwrap();
    let config = LoaderConfig { pack, media, microbatches: 2, prefetch: 2 };
    Loader::new(source, tokenizer, config).unwrap()
}

fn source(paths: &[PathBuf], indexes: Option<&Path>, seed: u64) -> Box<dyn DataSource> {
    let folders = Folders { indexes: indexes.map(Path::to_owned), ..Folders::default() };
    let shuffle_buffer = [1, 8, 100][seed as usize % 3];
    let config = WebDatasetConfig { seed, shuffle_buffer, folders, ..Default::default() };
    Box::new(WebDataset::open(paths, config).unwrap())
}

/// What training sees of a batch.
type Seen = (dip_core::BatchMeta, LoaderPosition, DecodedBatch);

fn seen(loader: &mut Loader) -> Seen {
    let PackedBatch { meta, position, microbatches, .. } = loader.next_batch().unwrap();
    let all: Vec<usize> = (0..microbatches.len()).collect();
    let packed = PackedBatch { meta, position, microbatches, trained_tokens: 0, used_tokens: 0 };
    let decoded = loader.decode(&packed, all).unwrap().wait().unwrap();
    (packed.meta, packed.position, decoded)
}

/// Checks that batches with indexes equal those without, while the indexes are made, afterwards, and after a resume.
fn check(name: &str, open: &dyn Fn(Option<&Path>) -> Box<dyn DataSource>) {
    let folder = tempfile::tempdir().unwrap();
    let mut without = loader(open(None));
    let expected: Vec<Seen> = (0..12).map(|_| seen(&mut without)).collect();
    for pass in ["made", "read"] {
        let mut with = loader(open(Some(folder.path())));
        for (i, expected) in expected.iter().enumerate() {
            let batch = with.next_batch().unwrap();
            assert_eq!(batch.meta, expected.0, "{name}: batch {i}, index {pass}");
            assert_eq!(batch.position, expected.1, "{name}: batch {i}, index {pass}");
        }
        assert_eq!(with.skipped(), without.skipped(), "{name}");
    }
    let made = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(made > 0, "{name}: no index was made");
    let mut with = loader(open(Some(folder.path())));
    for (i, expected) in expected.iter().enumerate() {
        assert!(seen(&mut with) == *expected, "{name}: batch {i}");
    }
    let mut resumed = loader(open(Some(folder.path())));
    resumed.restore(&expected[9].1).unwrap();
    assert!(seen(&mut resumed) == expected[10], "{name}");
    // The tokenizer of these batches knows no videos.
    let (mut without, mut with) = (open(None), open(Some(folder.path())));
    let mut videos = 0;
    for _ in 0..60 {
        let (expected, found) = (without.next_document().unwrap(), with.next_document().unwrap());
        assert!(found == expected, "{name}");
        for (expected, found) in expected.videos().zip(found.videos()) {
            assert_eq!(found.frame_info(1).unwrap(), expected.frame_info(1).unwrap(), "{name}");
            videos += 1;
        }
    }
    assert!(videos > 0, "{name}");
}

#[test]
fn batches_are_the_same_with_and_without_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let members = members();
    let (first, second) = members.split_at(70);
    let written = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar_of(second)).unwrap();
    let fastest = ruzstd::encoding::CompressionLevel::Fastest;
    let zstd = ruzstd::encoding::compress_to_vec(Cursor::new(tar_of(first)), fastest);
    let tars = [
        written("a.tar", &tar_of(first)),
        written("b.tar.gz", &gzip.finish().unwrap()),
        written("c.tar.zst", &zstd),
    ];
    let lines = [json_lines(folder.path(), &members)];
    for seed in 0..3 {
        check("tars", &|indexes| source(&tars, indexes, seed));
        check("JSON", &|indexes| source(&lines, indexes, seed));
        check("mixture", &|indexes| {
            let part = |paths, weight| MixturePart { source: source(paths, indexes, seed), weight };
            Box::new(Mixture::new(vec![part(&tars, 2.0), part(&lines, 1.0)], seed))
        });
    }
}

#[cfg(feature = "parquet")]
#[test]
fn batches_of_parquet_are_the_same_with_and_without_an_index() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parquet");
    let files = ["chats.parquet", "media.parquet"].map(|name| folder.join(name));
    check("Parquet", &|indexes| source(&files, indexes, 1));
}

/// Replaces bytes of a file by zeros, without a trace in its length and its times.
fn damage(path: &Path, place: std::ops::Range<u64>) {
    use std::io::{Seek, SeekFrom};
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(place.start)).unwrap();
    file.write_all(&vec![0; (place.end - place.start) as usize]).unwrap();
    file.set_times(FileTimes::new().set_modified(modified)).unwrap();
}

#[test]
fn with_an_index_no_picture_is_opened_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let lines = [json_lines(folder.path(), &members())];
    let folders = Folders::default();
    let request = IndexRequest { shards: lines.to_vec(), folders, ..IndexRequest::default() };
    let made = request.run(&|| ()).unwrap();
    assert_eq!((made.len(), made[0].is_new), (1, true));
    let MediaCounts { pictures, videos, sounds } = made[0].media;
    assert_eq!((pictures, videos, sounds, made[0].skipped.total()), (33, 6, 6, 3));
    let mut whole = loader(source(&lines, None, 1));
    let expected: Vec<_> = (0..6).map(|_| seen(&mut whole)).collect();
    for file in std::fs::read_dir(folder.path().join("media")).unwrap() {
        let path = file.unwrap().path();
        damage(&path, 0..std::fs::metadata(&path).unwrap().len());
    }
    let mut blind = loader(source(&lines, None, 1));
    for expected in &expected {
        let batch = blind.next_batch().unwrap();
        assert_eq!((&batch.meta, &batch.position), (&expected.0, &expected.1));
    }
    // A picture that is decoded after all is found to be broken.
    blind.restore(&expected[0].1).unwrap();
    let batch = blind.next_batch().unwrap();
    let error = blind.decode(&batch, [0, 1]).unwrap().wait();
    assert!(error.is_err() || error.unwrap().broken_pictures > 0);
    // Without its index the shard has no sample that can be used.
    std::fs::remove_file(&made[0].index).unwrap();
    let error = loader(source(&lines, None, 1)).next_batch().unwrap_err();
    assert!(matches!(error, DataError::NoSamples { .. }), "{error}");
}

#[test]
fn an_index_of_another_version_of_a_shard_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    std::fs::write(&path, tar_of(&members()[..40])).unwrap();
    let request = IndexRequest { shards: vec![path.clone()], ..IndexRequest::default() };
    let made = |request: &IndexRequest| request.run(&|| ()).unwrap()[0].is_new;
    assert_eq!([made(&request), made(&request)], [true, false]);
    assert!(made(&IndexRequest { rebuilds: true, ..request.clone() }));
    // Equal bytes of a later time, other bytes, and damage to the index itself.
    let index = request.run(&|| ()).unwrap()[0].index.clone();
    File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!([made(&request), made(&request)], [true, false]);
    std::fs::write(&path, tar_of(&members()[..42])).unwrap();
    assert_eq!([made(&request), made(&request)], [true, false]);
    let text = std::fs::read_to_string(&index).unwrap();
    let huge = text.replacen("\"picture\":[", "\"picture\":[4294967295,", 1);
    for damaged in ["", "{}", &text[..text.len() / 2], &format!("{text}{{}}\n"), &huge] {
        std::fs::write(&index, damaged).unwrap();
        assert_eq!([made(&request), made(&request)], [true, false], "{damaged:.99}");
    }
    assert_eq!(std::fs::read_to_string(&index).unwrap(), text);
}

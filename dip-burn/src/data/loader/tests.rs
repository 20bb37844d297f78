use std::sync::atomic::AtomicUsize;

use dip_core::ModelSpec;
use image::RgbImage;

use super::*;
use crate::batch::PositionRule;
use crate::data::toy::{DataSplit, Scenes, ScenesConfig, write_scene_shards};
use crate::data::{
    BestFit, Document, DocumentPiece, Picture, PictureError, PixelSource, Visual, WebDataset,
    WebDatasetConfig,
};

fn config() -> LoaderConfig {
    let special = Tokenizer::bytes().special();
    let pack = PackConfig {
        sequence_tokens: 128,
        max_images: 4,
        max_patches: 256,
        positions: PositionRule::Sequence,
        lookahead: 16,
        pad: special.pad,
    };
    let model = ModelSpec::from_toml(
        "name = 'm'\nsequence_tokens = 128\n[[module]]\nname = 'v'\nlayers = 1\nhidden = 4\nffn = 4\nheads = 1\n\
         kind.vit = { image_px = 8, patch_px = 1, merge = 2 }\n",
    );
    let images = ImageProcessor::of_model(&model.unwrap());
    LoaderConfig { pack, media: images.unwrap().into(), microbatches: 3, prefetch: 2 }
}

fn loader(source: Box<dyn DataSource>) -> Loader {
    Loader::new(source, Arc::new(Tokenizer::bytes()), config()).unwrap()
}

fn drawn() -> Box<dyn DataSource> {
    Box::new(Scenes::new(ScenesConfig { seed: 3, split: DataSplit::Train }))
}

/// Checks that a loader restored after any batch gives the batches that followed.
fn check_resume(source: impl Fn() -> Box<dyn DataSource>) {
    let mut whole = loader(source());
    let batches: Vec<PackedBatch> = (0..12).map(|_| whole.next_batch().unwrap()).collect();
    for saved in [0, 1, 5, 10] {
        let text = serde_json::to_string(&batches[saved].position).unwrap();
        let mut again = loader(source());
        again.restore(&serde_json::from_str(&text).unwrap()).unwrap();
        for expected in &batches[saved + 1..] {
            let batch = again.next_batch().unwrap();
            assert_eq!(batch.meta, expected.meta);
            assert_eq!(batch.microbatches, expected.microbatches);
            assert_eq!(batch.position, expected.position);
        }
    }
}

/// A loader of pictures of many sizes for an encoder that keeps proportions.
fn native() -> Loader {
    let model = ModelSpec::from_toml(
        "name = 'm'\nsequence_tokens = 192\nmax_images = 6\n[[module]]\nname = 'v'\nlayers = 1\nhidden = 4\nffn = 4\nheads = 1\n\
         kind.vit = { image_px = 16, patch_px = 2, merge = 2, native = { min_pixels = 64, max_pixels = 512 } }\n",
    )
    .unwrap();
    let tokenizer = Arc::new(Tokenizer::bytes());
    let pack = PackConfig::new(&model, tokenizer.special()).unwrap();
    let images = ImageProcessor::of_model(&model);
    let config = LoaderConfig { pack, media: images.unwrap().into(), microbatches: 3, prefetch: 2 };
    let scenes = Scenes::new(ScenesConfig { seed: 3, split: DataSplit::Train });
    Loader::new(Box::new(scenes.with_varied_sizes(true)), tokenizer, config).unwrap()
}

#[test]
fn pictures_of_many_sizes_have_their_own_tokens_and_resume() {
    let mut whole = native();
    let batches: Vec<PackedBatch> = (0..6).map(|_| whole.next_batch().unwrap()).collect();
    let mut sizes = std::collections::BTreeSet::new();
    for batch in &batches {
        let decoded = whole.decode(batch, [0, 1, 2]).unwrap().wait().unwrap();
        assert_eq!(decoded.broken_pictures, 0);
        for (meta, microbatch) in batch.meta.microbatches.iter().zip(&decoded.microbatches) {
            let images = microbatch.images.iter().map(|image| image.layout().size());
            let images: Vec<_> = images.collect();
            assert!(images.iter().map(|size| u64::from(size.patches)).sum::<u64>() <= 6 * 64);
            let used: u64 = meta.documents.iter().sum();
            let of_images: u64 = images.iter().map(|size| u64::from(size.tokens)).sum();
            assert_eq!(used, meta.text_tokens + of_images);
            sizes.extend(images.iter().map(|size| size.patches));
            assert_eq!(meta.images, images.into());
        }
    }
    assert!(sizes.len() > 8, "{sizes:?}");
    let mut again = native();
    again.restore(&batches[2].position).unwrap();
    assert_eq!(again.next_batch().unwrap().microbatches, batches[3].microbatches);
}

#[test]
fn a_resumed_loader_keeps_its_packing_rule_and_refuses_another() {
    let best_fit = || loader(drawn()).with_packing(Arc::new(BestFit));
    let used = |loader: &mut Loader| {
        (0..40).map(|_| loader.next_batch().unwrap().used_tokens).sum::<u64>()
    };
    assert!(used(&mut best_fit()) > used(&mut loader(drawn())));
    let mut whole = best_fit();
    let position = whole.next_batch().unwrap().position;
    let mut again = best_fit();
    again.restore(&position).unwrap();
    assert_eq!(again.next_batch().unwrap().microbatches, whole.next_batch().unwrap().microbatches);
    assert!(loader(drawn()).restore(&position).is_err());
}

#[test]
fn a_batch_has_the_fewest_microbatches_that_reach_the_token_budget() {
    let budget = 300;
    let mut whole = loader(drawn()).with_token_budget(Some(budget));
    let batches: Vec<PackedBatch> = (0..12).map(|_| whole.next_batch().unwrap()).collect();
    for batch in &batches {
        let last = batch.microbatches.last().unwrap();
        assert!(batch.used_tokens >= budget);
        assert!(batch.used_tokens - u64::from(last.used_tokens) < budget);
    }
    let mut again = loader(drawn()).with_token_budget(Some(budget));
    again.restore(&batches[4].position).unwrap();
    assert_eq!(again.next_batch().unwrap().meta, batches[5].meta);
    // Another budget would divide the same documents into other batches.
    assert!(loader(drawn()).restore(&batches[4].position).is_err());
}

#[test]
fn drawn_scenes_resume() {
    check_resume(drawn);
}

#[test]
fn shards_resume_over_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let scenes = ScenesConfig { seed: 5, split: DataSplit::Train };
    write_scene_shards(folder.path(), scenes, 60, 20, 8).unwrap();
    check_resume(|| {
        let config = WebDatasetConfig { seed: 2, shuffle_buffer: 16, ..Default::default() };
        Box::new(WebDataset::open(&[folder.path().to_owned()], config).unwrap())
    });
}

#[test]
fn metadata_agrees_with_the_pixels_that_follow() {
    let mut loader = loader(drawn());
    let batch = loader.next_batch().unwrap();
    let all: Vec<usize> = (0..batch.microbatches.len()).collect();
    let decoded = loader.decode(&batch, all.clone()).unwrap().wait().unwrap();
    assert_eq!(decoded.trained_tokens, batch.trained_tokens);
    let last = all.len() - 1;
    let some = loader.decode(&batch, [last, 0]).unwrap().wait().unwrap();
    let expected = [last, 0].map(|k| decoded.microbatches[k].clone());
    assert_eq!(some.microbatches, expected);
    for (meta, microbatch) in batch.meta.microbatches.iter().zip(&decoded.microbatches) {
        assert_eq!(meta.images.len() as usize, microbatch.images.len());
        for (image, placed) in microbatch.images.iter().zip(&microbatch.packed.images) {
            assert_eq!(image.layout(), placed.layout);
            assert!(image.views.iter().all(|view| view.pixels.len() == 3 * 8 * 8));
        }
    }
}

#[test]
fn a_picture_that_breaks_in_decoding_becomes_grey_and_mutes_its_document() {
    let mut loader = loader(drawn());
    let batch = loop {
        let batch = loader.next_batch().unwrap();
        if !batch.meta.microbatches[0].images.is_empty() {
            break batch;
        }
    };
    let mut microbatches = batch.microbatches.to_vec();
    microbatches[0].images[0].visual = Visual::Picture(Picture::Encoded(vec![0; 9].into()));
    let decoded = decode_microbatches(&microbatches, &config().media).unwrap();
    assert_eq!(decoded.broken_pictures, 1);
    assert!(decoded.trained_tokens < batch.trained_tokens);
    let grey = &decoded.microbatches[0].images[0].views[0];
    assert!(grey.pixels.iter().all(|&v| v == 0.0));
}

#[test]
fn a_position_of_another_shape_is_refused() {
    let mut first = loader(drawn());
    let position = first.next_batch().unwrap().position;
    let mut other = config();
    other.microbatches = 4;
    let mut other = Loader::new(drawn(), Arc::new(Tokenizer::bytes()), other).unwrap();
    assert!(matches!(other.restore(&position), Err(DataError::Position(_))));
}

#[test]
fn data_in_which_nothing_fits_ends_in_an_error_after_one_pass() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(4, 4).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut append = |name: String, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    for sample in ["a", "b", "c"] {
        // Without marks the text comes after all ten pictures, but a sequence holds at most four.
        (0..10).for_each(|i| append(format!("{sample}.{i}.png"), png.get_ref()));
        append(format!("{sample}.txt"), b"a caption");
    }
    tar.finish().unwrap();
    let source = WebDataset::open(&[path], WebDatasetConfig::default()).unwrap();
    let error = loader(Box::new(source)).next_batch().unwrap_err().to_string();
    for part in ["3 no text within", "max_images", "text without marks comes after all pictures"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_resumed_loader_refuses_another_processor_of_pictures() {
    let position = native().next_batch().unwrap().position;
    let with = |range: &str| {
        let model = format!(
            "name = 'm'\nsequence_tokens = 192\nmax_images = 6\nmax_patches = 384\n[[module]]\nname = 'v'\nlayers = 1\nhidden = 4\n\
             ffn = 4\nheads = 1\nkind.vit = {{ image_px = 16, patch_px = 2, merge = 2, native = {range} }}\n"
        );
        let model = ModelSpec::from_toml(&model).unwrap();
        let tokenizer = Arc::new(Tokenizer::bytes());
        let pack = PackConfig::new(&model, tokenizer.special()).unwrap();
        let media = ImageProcessor::of_model(&model).unwrap().into();
        let config = LoaderConfig { pack, media, microbatches: 3, prefetch: 2 };
        let scenes = Scenes::new(ScenesConfig { seed: 3, split: DataSplit::Train });
        let mut loader = Loader::new(Box::new(scenes), tokenizer, config).unwrap();
        loader.restore(&position).map_err(|error| error.to_string())
    };
    assert_eq!(with("{ min_pixels = 64, max_pixels = 512 }"), Ok(()));
    let error = with("{ min_pixels = 64, max_pixels = 300 }").unwrap_err();
    assert!(error.contains("its processor of pictures, videos or sounds is different"), "{error}");
    // Positions of earlier versions do not know their processor.
    let mut value = serde_json::to_value(&position).unwrap();
    value["shape"].as_object_mut().unwrap().remove("processor").unwrap();
    native().restore(&serde_json::from_value(value).unwrap()).unwrap();
}

#[test]
fn documents_that_the_loader_skips_are_named_by_their_file_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let shard = folder.path().join("a.jsonl");
    let long = format!("{{\"text\": \"{}\"}}\n", "long ".repeat(99));
    std::fs::write(&shard, format!("{{\"text\": \"short\"}}\n{long}")).unwrap();
    let source = WebDataset::open(
        &[shard],
        WebDatasetConfig { shuffle_buffer: 1, ..WebDatasetConfig::default() },
    );
    let mut loader = loader(Box::new(source.unwrap())).with_too_long(TooLong::Skip);
    loader.next_batch().unwrap();
    let named = &loader.report().first_skipped[0];
    assert_eq!((named.reason, named.name.as_str()), (SkipReason::TooLong, "a.jsonl: sample 1"));
}

/// Scenes that count how often their pictures are drawn.
struct Counted(Scenes, Arc<AtomicUsize>);

#[derive(Debug)]
struct CountedPicture(Picture, Arc<AtomicUsize>);

impl PixelSource for CountedPicture {
    fn rgb(&self, side_px: u32) -> Result<RgbImage, PictureError> {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.rgb(side_px)
    }
}

impl DataSource for Counted {
    fn next_document(&mut self) -> Result<Document, DataError> {
        let Document::Plain(mut pieces) = self.0.next_document()? else { panic!() };
        for piece in &mut pieces {
            if let DocumentPiece::Picture(picture) = piece {
                let counted = CountedPicture(picture.clone(), self.1.clone());
                *picture = Picture::Drawn(Arc::new(counted));
            }
        }
        Ok(Document::Plain(pieces))
    }

    fn position(&self) -> SourcePosition {
        self.0.position()
    }

    fn restore(&mut self, position: &SourcePosition) -> Result<(), DataError> {
        self.0.restore(position)
    }
}

#[test]
fn those_who_read_no_pictures_decode_none_and_know_their_sizes() {
    let decoded = Arc::new(AtomicUsize::new(0));
    let scenes = Scenes::new(ScenesConfig { seed: 3, split: DataSplit::Train });
    let mut loader = loader(Box::new(Counted(scenes, decoded.clone())));
    let shows = |microbatch: &PackedMicrobatch| !microbatch.images.is_empty();
    let batch = loop {
        let batch = loader.next_batch().unwrap();
        if batch.microbatches[..2].iter().all(shows) {
            break batch;
        }
    };
    let pictures = |k: usize| batch.microbatches[k].images.len();
    let blind = Inputs { images: false, sounds: true };
    let wanted = [Wanted { microbatch: 0, inputs: blind }, Wanted::from(1)];
    let some = loader.decode(&batch, wanted).unwrap().wait().unwrap();
    assert_eq!(decoded.load(Ordering::SeqCst), pictures(1));
    let all = loader.decode(&batch, [0, 1]).unwrap().wait().unwrap();
    assert_eq!(some.microbatches[1], all.microbatches[1]);
    assert_eq!(some.microbatches[0].packed, all.microbatches[0].packed);
    for (unseen, seen) in some.microbatches[0].images.iter().zip(&all.microbatches[0].images) {
        assert_eq!(unseen.layout(), seen.layout());
        assert!(unseen.views.iter().all(|view| view.pixels.is_empty()));
    }
}

#[test]
fn batches_packed_together_are_more_even_keep_their_documents_and_resume() {
    let batches = |lookahead: u32, count: usize| -> Vec<PackedBatch> {
        let mut loader = native().with_lookahead(lookahead);
        (0..count).map(|_| loader.next_batch().unwrap()).collect()
    };
    let patches = |batch: &PackedBatch| -> Vec<f64> {
        let of_sequence = |m: &PackedMicrobatch| m.images.iter().map(|p| p.layout.patches()).sum();
        batch.microbatches.iter().map(of_sequence).map(|patches: u64| patches as f64).collect()
    };
    let variance = |batches: &[PackedBatch]| {
        let all: Vec<f64> = batches.iter().flat_map(patches).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64
    };
    let documents = |batches: &[PackedBatch]| {
        let mut all: Vec<Vec<u32>> = Vec::new();
        for microbatch in batches.iter().flat_map(|batch| batch.microbatches.iter()) {
            let used = microbatch.used_tokens as usize;
            let documents = microbatch.documents[..used].chunk_by(|a, b| a == b);
            let mut start = 0;
            for document in documents {
                all.push(microbatch.tokens[start..start + document.len()].to_vec());
                start += document.len();
            }
        }
        all.sort();
        all
    };
    let (plain, alone, ahead) = (batches(0, 12), batches(1, 12), batches(4, 12));
    let variances = [&plain, &alone, &ahead].map(|batches| variance(batches));
    assert!(variances.is_sorted_by(|a, b| 0.95 * a > *b), "{variances:?}");
    for (plain, ahead) in plain.chunks(4).zip(ahead.chunks(4)) {
        assert!(documents(plain) == documents(ahead));
    }
    for (plain, alone) in plain.chunks(1).zip(alone.chunks(1)) {
        assert!(documents(plain) == documents(alone));
    }
    for saved in 0..9 {
        let text = serde_json::to_string(&ahead[saved].position).unwrap();
        let position: LoaderPosition = serde_json::from_str(&text).unwrap();
        let mut again = native().with_lookahead(4);
        again.next_batch().unwrap();
        again.restore(&position).unwrap();
        assert_eq!(again.position(), position);
        for expected in &ahead[saved + 1..] {
            let batch = again.next_batch().unwrap();
            assert_eq!(
                (batch.meta, batch.position),
                (expected.meta.clone(), expected.position.clone())
            );
            assert!(batch.microbatches == expected.microbatches);
        }
        assert!(native().with_lookahead(3).restore(&position).is_err());
    }
}

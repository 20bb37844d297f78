//! The whole chain from a text with picture files to logits: tokenizer, image processor and model give what `transformers` gives.

use std::path::PathBuf;

use dip_burn::data::{Document, DocumentPiece, IMAGE_MARK, ImageProcessor, Picture, Tokenizer};
use dip_burn::model::{InitialWeights, WholeModel};
use dip_burn::weights::{TensorStore, Weights};
use dip_burn::{Microbatch, text_positions};
use dip_core::hf::{ImageProcessorConfig, ProcessorFiles};

use super::{Fixture, TOLERANCE, largest};
use crate::support::B;

#[test]
fn documents_with_pictures_have_the_tokens_and_logits_of_transformers() {
    for name in ["llava-clip", "llava-next", "llava-onevision", "idefics3", "smolvlm"] {
        Chain::read(name).check(name);
    }
}

/// A model with its tokenizer and processor, documents, and what `transformers` computes for them.
struct Chain {
    fixture: Fixture,
    folder: PathBuf,
    processor: ImageProcessor,
    tokenizer: Tokenizer,
}

impl Chain {
    fn read(name: &str) -> Self {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/hf/documents");
        let (folder, fixture) = (PathBuf::from(root).join(name), Fixture::read(name));
        let text = std::fs::read_to_string(folder.join("preprocessor_config.json")).unwrap();
        let config = std::fs::read_to_string(fixture.folder.join("config.json")).unwrap();
        let files =
            ProcessorFiles { preprocessor: Some(&text), model: Some(&config), processor: None };
        let config = ImageProcessorConfig::read(files).unwrap().unwrap();
        let processor = ImageProcessor::new(config, &fixture.model).unwrap();
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json")).unwrap();
        Self { fixture, folder, processor, tokenizer }
    }

    fn check(&self, name: &str) {
        let weights = Weights::open(&self.fixture.folder, &self.fixture.model).unwrap();
        let start = InitialWeights { seed: 0, weights: Some(&weights) };
        let model = WholeModel::<B>::init(&self.fixture.model, start, &Default::default()).unwrap();
        let expected = TensorStore::open_file(&self.folder.join("expected.safetensors")).unwrap();
        for (i, document) in self.documents().iter().enumerate() {
            let sequence = self.sequence(document);
            let ids = expected.all(&format!("input_ids.{i}")).unwrap();
            let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
            assert_eq!(sequence.tokens, ids, "{name} {i}");
            let vocab = expected.shape(&format!("logits.{i}")).unwrap()[1];
            let logits = expected.all(&format!("logits.{i}")).unwrap();
            let logits: Vec<_> = logits.chunks(vocab).map(<[f32]>::to_vec).collect();
            let ours = model.logits(&sequence).unwrap().into_data().to_vec::<f32>().unwrap();
            let worst = largest(&logits, &ours);
            assert!(worst < TOLERANCE, "{name} {i}: {worst}");
        }
    }

    /// The texts of the fixture with their pictures.
    fn documents(&self) -> Vec<Document> {
        let texts = std::fs::read_to_string(self.folder.join("texts.json")).unwrap();
        let texts: Vec<String> = serde_json::from_str(&texts).unwrap();
        let mut number = 0;
        let mut picture = || {
            let bytes = std::fs::read(self.folder.join(format!("picture-{number}.png"))).unwrap();
            number += 1;
            DocumentPiece::Picture(Picture::Encoded(bytes.into()))
        };
        let mut document = |text: String| {
            let mut pieces = Vec::new();
            for (i, part) in text.split(IMAGE_MARK).enumerate() {
                pieces.extend((i > 0).then(&mut picture));
                pieces.push(DocumentPiece::Text(part.to_owned()));
            }
            Document::Plain(pieces)
        };
        texts.into_iter().map(&mut document).collect()
    }

    /// A document as one sequence with decoded pictures.
    fn sequence(&self, document: &Document) -> Microbatch {
        let tokens =
            document.tokenize_open(&self.tokenizer, &self.processor.clone().into()).unwrap();
        let images = tokens.pictures.iter();
        let images = images.map(|p| self.processor.visual(&p.visual, &p.layout).unwrap());
        Microbatch {
            documents: vec![0; tokens.tokens.len()],
            positions: text_positions(tokens.tokens.len()).collect(),
            images: images.collect(),
            image_offsets: tokens.pictures.iter().map(|p| p.offset).collect(),
            tokens: tokens.tokens,
            ..Microbatch::default()
        }
    }
}

use dip_core::Images;

use super::*;
use crate::batch::{ImageLayout, PositionRule, ViewGrid};
use crate::data::{Picture, PlacedPicture, Room, Tokenizer, Visual};

const IMAGE: u32 = 259;
const PAD: u32 = 256;

fn config() -> PackConfig {
    PackConfig {
        sequence_tokens: 16,
        max_images: 2,
        max_patches: 24,
        positions: PositionRule::Sequence,
        lookahead: 4,
        pad: PAD,
    }
}

/// A document of text tokens and images in front.
fn document(images: u32, text: usize) -> TokenizedDocument {
    let special = Tokenizer::bytes();
    let mut document = TokenizedDocument::default();
    document.extend(special.begin().iter().copied(), false);
    for i in 0..images {
        let picture = Picture::Encoded(vec![i as u8].into());
        let layout =
            ImageLayout { views: vec![ViewGrid::still(2, 6)], tokens: 3, ..ImageLayout::default() };
        document.pictures.push(PlacedPicture {
            offset: document.tokens.len() as u32,
            visual: Visual::Picture(picture),
            layout,
        });
        document.extend([IMAGE; 3], false);
    }
    document.extend(std::iter::repeat_n(65, text), true);
    document
}

fn pack_all(documents: Vec<TokenizedDocument>, sequences: usize) -> Vec<PackedMicrobatch> {
    pack_all_by(FirstFit, documents, sequences)
}

fn pack_all_by(
    rule: impl PackingRule + 'static,
    documents: Vec<TokenizedDocument>,
    sequences: usize,
) -> Vec<PackedMicrobatch> {
    let mut packer = Packer::new(config()).unwrap().with_rule(Arc::new(rule));
    let mut numbered = (0u64..).zip(documents.into_iter().cycle());
    (0..sequences).map(|_| packer.pack(|| numbered.next().ok_or(())).unwrap()).collect()
}

#[test]
fn positions_restart_and_targets_stay_inside_their_document() {
    let packed = &pack_all(vec![document(1, 2), document(0, 4)], 1)[0];
    assert_eq!(packed.documents, [vec![0; 6], vec![1; 5], vec![2; 5]].concat());
    assert_eq!(packed.positions[..8], [0, 1, 2, 3, 4, 5, 0, 1].map(|p| [p; 3]));
    // Image tokens follow bos and the first two image tokens: no loss. The last token has no successor.
    assert_eq!(packed.loss_mask[..7], [false, false, false, true, true, false, true]);
    assert_eq!(packed.targets[..7], [IMAGE, IMAGE, IMAGE, 65, 65, PAD, 65]);
    assert_eq!(packed.images[0].offset, 1);
    assert_eq!(packed.trained_tokens(), 2 + 4 + 4);
    assert_eq!((packed.used_tokens, packed.packed_documents), (16, 3));
    let own = &packed.images[0].layout;
    let meta = packed.meta(Some(own));
    assert_eq!((meta.images, meta.text_tokens), (Images::Count(1), 13));
    assert_eq!(packed.meta(None).images, vec![own.size()].into());
}

#[test]
fn a_smaller_document_fills_the_gap_that_the_next_one_leaves() {
    let packed = &pack_all(vec![document(0, 11), document(0, 7), document(0, 3)], 1)[0];
    assert_eq!(packed.used_tokens, 16);
}

#[test]
fn the_best_fit_follows_the_oldest_document() {
    let documents: Vec<_> = [7, 2, 7, 11, 11, 11, 11].map(|text| document(0, text)).into();
    let first = &pack_all(documents.clone(), 1)[0];
    let best = &pack_all_by(BestFit, documents, 1)[0];
    // With bos, 8 + 3 leave room for none; 8 + 8 leave no room.
    assert_eq!((first.used_tokens, best.used_tokens), (11, 16));
}

#[test]
fn a_rule_may_close_a_sequence_but_never_leaves_one_empty() {
    #[derive(Debug)]
    struct Alone;
    impl PackingRule for Alone {
        fn name(&self) -> &str {
            "alone"
        }
        fn next(&self, packed: &[Fitting], room: Room, fitting: &[Fitting]) -> Option<usize> {
            assert_eq!((packed.len(), room.images), (1, 1));
            // An index out of range means the same as `None`.
            Some(fitting.len())
        }
    }
    let packed = pack_all_by(Alone, vec![document(1, 1)], 3);
    assert!(packed.iter().all(|p| p.packed_documents == 1));
}

#[test]
fn images_have_their_own_limit() {
    let packed = pack_all(vec![document(1, 1)], 3);
    assert!(packed.iter().all(|p| p.images.len() == 2 && p.used_tokens == 10));
}

#[test]
fn patches_have_their_own_limit() {
    let mut packer = Packer::new(PackConfig { max_patches: 23, ..config() }).unwrap();
    let mut numbered = (0u64..).zip(std::iter::repeat(document(1, 1)));
    let packed = packer.pack(|| numbered.next().ok_or(())).unwrap();
    assert_eq!((packed.images.len(), packed.used_tokens), (1, 5));
    // Of two images in one document only the first fits.
    packer.wait(0, document(2, 1));
    assert_eq!((packer.truncated_documents, packer.truncated_tokens), (1, 4));
}

#[test]
fn a_document_that_is_too_long_is_cut_and_counted() {
    let mut packer = Packer::new(config()).unwrap();
    packer.wait(0, document(0, 40));
    packer.wait(1, document(5, 0));
    assert_eq!((packer.truncated_documents, packer.truncated_tokens), (2, 25 + 9));
    // Two images and no text: there is nothing to train on.
    assert_eq!(packer.waiting().collect::<Vec<_>>(), [0]);
}

#[test]
fn a_muted_document_has_no_loss_and_the_others_keep_theirs() {
    let mut packed = pack_all(vec![document(1, 2), document(0, 4)], 1).remove(0);
    packed.mute_document_at(packed.images[0].offset);
    assert_eq!(packed.trained_tokens(), 4 + 4);
}

#[test]
fn settings_outside_their_limits_are_named() {
    let wrong = PackConfig { lookahead: 0, ..config() };
    let error = Packer::new(wrong).unwrap_err().to_string();
    assert!(error.contains("lookahead is 0"), "{error}");
    let model = dip_core::presets::model("vlm-tiny").unwrap();
    let short = dip_core::ModelSpec { sequence_tokens: 17, ..model };
    let error = PackConfig::new(&short, Tokenizer::bytes().special()).unwrap_err().to_string();
    assert!(error.contains("tokens_per_image is 16"), "{error}");
}

//! Audio encoders beside vision encoders, in front of one decoder.

use dip_burn::model::WholeModel;
use dip_burn::{Microbatch, Sound, ViewGrid, text_positions};
use dip_core::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::gradients::Case;
use crate::support::*;

/// Mel bands of the models.
const BANDS: usize = 5;
/// Encoder frames of the longest sound.
const MAX_FRAMES: u32 = 9;
/// Tokens of an image.
const PER_IMAGE: u32 = 4;

/// A vision encoder and an audio encoder that feed one decoder.
fn omni(rng: &mut ChaCha8Rng, projector: AudioProjector, frozen: bool) -> ModelSpec {
    let projector = match projector {
        AudioProjector::Merger => "merger",
        AudioProjector::Pooled => "pooled",
    };
    let [vision, audio, language] = [(); 3].map(|()| rng.random_range(1..4));
    let text = format!(
        "name = 'test'\nsequence_tokens = 40\nmax_images = 6\n\
         [[module]]\nname = 'vision'\nlayers = {vision}\nhidden = 16\nffn = 24\nheads = 2\n\
         kind.vit = {{ image_px = 16, patch_px = 4, merge = 2 }}\n\
         [[module]]\nname = 'audio'\nlayers = {audio}\nhidden = 12\nffn = 20\nheads = 3\ntrainable = {}\n\
         options.attention_bias = 'all_but_key'\n\
         kind.audio = {{ frames_per_second = 50, merge = 2, mel_bands = {BANDS}, max_frames = {MAX_FRAMES}, \
         projector = '{projector}' }}\n\
         [[module]]\nname = 'language'\nlayers = {language}\nhidden = 24\nffn = 32\nheads = 4\nkv_heads = 2\n\
         inputs = ['vision', 'audio']\nkind.decoder = {{ vocab = 32 }}\n",
        !frozen
    );
    ModelSpec::from_toml(&text).unwrap()
}

fn audio_of(model: &ModelSpec) -> &AudioSpec {
    model.modules[1].kind.get().unwrap()
}

/// A sound of random values with the rows after it that the encoder reads.
fn sound(rng: &mut ChaCha8Rng, audio: &AudioSpec, offset: usize) -> Sound {
    let mel_frames = rng.random_range(2 * audio.merge - 1..=2 * MAX_FRAMES);
    let frames = mel_frames.div_ceil(2);
    let rows = (2 * frames + 1).min(2 * MAX_FRAMES) as usize;
    Sound {
        mel: (0..rows * BANDS).map(|_| rng.random_range(-1.0..1.5)).collect(),
        mel_frames,
        offset: offset as u32,
        tokens: audio.tokens_of(frames.into()) as u32,
    }
}

/// One sequence of 40 tokens: documents of images (`i`), sounds (`s`) and texts (`t`), the rest padding.
fn sequence(rng: &mut ChaCha8Rng, model: &ModelSpec, documents: &[&str]) -> Microbatch {
    let mut m = Microbatch::default();
    for (document, pieces) in documents.iter().enumerate() {
        let start = m.tokens.len();
        for piece in pieces.chars() {
            let at = m.tokens.len();
            let room = 40 - at;
            let sound = sound(rng, audio_of(model), at);
            if piece == 'i' && room > PER_IMAGE as usize {
                m.images.push(image(rng, ViewGrid::still(4, 4)));
                m.image_offsets.push(at as u32);
                push(&mut m, document, PER_IMAGE as usize, false, rng);
            } else if piece == 's' && room > sound.tokens as usize {
                push(&mut m, document, sound.tokens as usize, false, rng);
                m.sounds.push(sound);
            }
            let text = rng.random_range(1..4).min(40 - m.tokens.len());
            push(&mut m, document, text, true, rng);
        }
        m.positions.extend(text_positions(m.tokens.len() - start));
    }
    let padding = 40 - m.tokens.len();
    push(&mut m, 1000, padding, false, rng);
    m.positions.extend(text_positions(padding));
    m
}

#[test]
fn two_encoders_of_one_decoder_have_the_gradients_of_one_device_on_random_plans() {
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    let documents: [&[&str]; 5] =
        [&["t"], &["s"], &["ist", "si"], &["sss", "t", "i"], &["ii", "ts", "s", "is"]];
    for round in 0..30 {
        let projector = [AudioProjector::Pooled, AudioProjector::Merger][round % 2];
        let model = omni(&mut rng, projector, round % 5 == 4);
        let count = rng.random_range(1..4);
        let microbatches = (0..count).map(|_| {
            let choice = documents[rng.random_range(0..documents.len())];
            sequence(&mut rng, &model, choice)
        });
        let microbatches: Vec<_> = microbatches.collect();
        let (metas, batch) = batch_of(&mut rng, &model, microbatches);
        let case = Case { model, metas, batch };
        case.holds(&mut rng, 1 + round as u32 % 3, &["keep", "selective", "full", "offload"]);
    }
}

#[test]
fn sounds_side_by_side_have_the_loss_of_sounds_alone() {
    let mut rng = ChaCha8Rng::seed_from_u64(22);
    for projector in [AudioProjector::Pooled, AudioProjector::Merger] {
        let model = omni(&mut rng, projector, false);
        let packed = sequence(&mut rng, &model, &["s", "si", "ts"]);
        assert!(packed.sounds.len() > 1);
        let whole = WholeModel::<B>::init(&model, 7, &Default::default()).unwrap();
        let alone: Vec<_> = (0..3).map(|document| alone(&packed, document)).collect();
        let (a, b) = (whole.loss(&[packed]).unwrap(), whole.loss(&alone).unwrap());
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
}

/// One document of a packed sequence on its own.
fn alone(packed: &Microbatch, document: u32) -> Microbatch {
    let start = packed.documents.partition_point(|&d| d < document);
    let end = packed.documents.partition_point(|&d| d <= document);
    let own = |offset: u32| (start..end).contains(&(offset as usize));
    let moved = |sound: &Sound| Sound { offset: sound.offset - start as u32, ..sound.clone() };
    let images = packed.image_offsets.iter().zip(&packed.images).filter(|(o, _)| own(**o));
    let (image_offsets, images) = images.map(|(o, i)| (o - start as u32, i.clone())).unzip();
    Microbatch {
        tokens: packed.tokens[start..end].to_vec(),
        documents: packed.documents[start..end].to_vec(),
        positions: packed.positions[start..end].to_vec(),
        targets: packed.targets[start..end].to_vec(),
        loss_mask: packed.loss_mask[start..end].to_vec(),
        sounds: packed.sounds.iter().filter(|s| own(s.offset)).map(moved).collect(),
        images,
        image_offsets,
        ..Microbatch::default()
    }
}

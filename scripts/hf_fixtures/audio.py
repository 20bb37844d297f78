"""Audio-language models: Qwen2-Audio."""

import torch
import transformers as tf

from hf_fixtures.common import TEXT, case, pixels, randomise, sequence, write

MEL_BANDS, MAX_FRAMES = 8, 12


def tokens(mel_frames):
    """Encoder frames and tokens of a sound."""
    frames = (mel_frames - 1) // 2 + 1
    return frames, (frames - 2) // 2 + 1


def qwen2_audio(folder):
    audio = dict(
        num_mel_bins=MEL_BANDS,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=40,
        d_model=24,
        activation_function="gelu",
        max_source_positions=MAX_FRAMES,
    )
    text = TEXT | dict(model_type="qwen2", rms_norm_eps=1e-5, rope_parameters=dict(rope_type="default", rope_theta=1e4))
    config = tf.Qwen2AudioConfig(audio_config=audio, text_config=text, audio_token_index=90)
    model = randomise(tf.Qwen2AudioForConditionalGeneration(config), torch.bfloat16)

    def sounds(pieces, lengths):
        ids, offsets = sequence([tokens(lengths[p[0]])[1] if isinstance(p, tuple) else p for p in pieces])
        # What lies after a sound is random, too: the encoder must not look at more than one or two of its frames.
        mel = pixels(len(lengths), MEL_BANDS, 2 * MAX_FRAMES, seed=len(lengths) + 3)
        mask = torch.arange(2 * MAX_FRAMES)[None] < torch.tensor(lengths)[:, None]
        inputs = dict(input_features=mel, feature_attention_mask=mask.long()) if lengths else {}
        rows = [min(2 * tokens(n)[0] + 1, 2 * MAX_FRAMES) for n in lengths]
        heard = [(n, x[:, :r].T) for n, x, r in zip(lengths, mel, rows)]
        return case(ids, offsets, sounds=heard, **inputs)

    many = sounds([[5, 17], (0,), [41, 7, 22], (1,), [3], (2,), [60, 9], (3,), [2]], [24, 13, 6, 15])
    one = sounds([(0,), [5, 17, 41, 2]], [10])
    write(folder, model, [many, one, sounds([[5, 17, 41, 7, 60, 2]], [])], dtype=torch.bfloat16)


MODELS = {"qwen2-audio": qwen2_audio}
PUBLISHED = {
    "Qwen2-Audio-7B": dict(
        architectures=["Qwen2AudioForConditionalGeneration"],
        model_type="qwen2_audio",
        audio_token_index=151646,
        audio_config=dict(
            model_type="qwen2_audio_encoder",
            num_mel_bins=128,
            encoder_layers=32,
            encoder_attention_heads=20,
            encoder_ffn_dim=5120,
            d_model=1280,
            activation_function="gelu",
            scale_embedding=False,
            max_source_positions=1500,
        ),
        text_config=dict(
            model_type="qwen2",
            intermediate_size=11008,
            max_position_embeddings=8192,
            rms_norm_eps=1e-5,
            rope_theta=10000,
            sliding_window=32768,
            vocab_size=156032,
        ),
    ),
}

"""Wan 2.1 from text to video: the transformer of `diffusers` with its UMT5 text encoder.

The folder has the layout of `diffusers`, `counts.json` with the number of parameters of published configs, `captions.json` with captions
and their tokens without padding, and `expected.safetensors`
with, for clip i: noisy.i, target.i and output.i [channels, frames, rows, columns], sigma.i [1], ids.i [tokens]; the loss [1], and for
each tensor of the files NAME, such as `transformer/proj_out.weight`: gradient_norm:NAME, gradient:NAME and step:NAME, as in `common`.
sample.noise and sample.clip are the two ends of SAMPLE_STEPS Euler steps with the first caption.
"""

import json
import re

import torch
import transformers as tf
from diffusers import WanTransformer3DModel
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from .common import BETAS, EPSILON, LEARNING_RATE, MAX_BYTES, WEIGHT_DECAY, decays, randomise, saved, spread

PUBLISHED = {}
CAPTION_TOKENS = 512
SAMPLE_STEPS = 3
GUIDANCE = 2.5
SHIFT = 3.0
TRANSFORMER = dict(
    patch_size=[1, 2, 2],
    num_attention_heads=2,
    attention_head_dim=14,
    in_channels=4,
    out_channels=4,
    text_dim=20,
    freq_dim=16,
    ffn_dim=36,
    num_layers=2,
    cross_attn_norm=True,
    qk_norm="rms_norm_across_heads",
    eps=1e-6,
    rope_max_seq_len=64,
)
TEXT = dict(
    vocab_size=64,
    d_model=20,
    d_kv=6,
    d_ff=28,
    num_layers=2,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    feed_forward_proj="gated-gelu",
    tie_word_embeddings=True,
)
# Frames, rows and columns; the share of noise; the caption.
CLIPS = [
    ((1, 4, 4), 0.93, [5, 17, 40, 2, 1]),
    ((3, 4, 6), 0.41, [9, 33, 60, 11, 4, 8, 21, 50, 7, 3, 3, 1]),
    ((2, 8, 2), 0.07, [1]),
]
EMPTY = [1]
# Captions for the tokenizer; the last is cut at CAPTION_TOKENS.
CAPTIONS = ["a red circle moves left", "", "  two\n birds,  one\ttree ", "Grün & blau: 3 Kreise", "circle " * 600]
WAN_1_3B = dict(
    added_kv_proj_dim=None,
    attention_head_dim=128,
    cross_attn_norm=True,
    eps=1e-06,
    ffn_dim=8960,
    freq_dim=256,
    image_dim=None,
    in_channels=16,
    num_attention_heads=12,
    num_layers=30,
    out_channels=16,
    patch_size=[1, 2, 2],
    pos_embed_seq_len=None,
    qk_norm="rms_norm_across_heads",
    rope_max_seq_len=1024,
    text_dim=4096,
)
WAN_14B = WAN_1_3B | dict(ffn_dim=13824, num_attention_heads=40, num_layers=40)
UMT5_XXL = dict(
    architectures=["UMT5EncoderModel"],
    d_ff=10240,
    d_kv=64,
    d_model=4096,
    feed_forward_proj="gated-gelu",
    is_encoder_decoder=True,
    layer_norm_epsilon=1e-06,
    num_heads=64,
    num_layers=24,
    relative_attention_max_distance=128,
    relative_attention_num_buckets=32,
    vocab_size=256384,
)
INDEX = {
    "_class_name": "WanPipeline",
    "_diffusers_version": "0.33.0",
    "boundary_ratio": None,
    "expand_timesteps": False,
    "scheduler": ["diffusers", "UniPCMultistepScheduler"],
    "text_encoder": ["transformers", "UMT5EncoderModel"],
    "tokenizer": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "WanTransformer3DModel"],
    "transformer_2": [None, None],
    "vae": ["diffusers", "AutoencoderKLWan"],
}
SCHEDULER = {"_class_name": "UniPCMultistepScheduler", "flow_shift": SHIFT, "prediction_type": "flow_prediction"}


def embeddings(encoder, ids):
    """The rows of a caption with zeros after them, as the pipeline pads them."""
    rows = encoder(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids))).last_hidden_state
    return torch.cat([rows, rows.new_zeros(1, CAPTION_TOKENS - len(ids), rows.shape[2])], 1)


def sampled(transformer, encoder, noise):
    """Euler steps from noise to a clip, with guidance."""
    caption, empty = embeddings(encoder, CLIPS[0][2]), embeddings(encoder, EMPTY)
    steps = torch.linspace(1, 0, SAMPLE_STEPS + 1)
    sigmas = SHIFT * steps / (1 + (SHIFT - 1) * steps)
    clip = noise[None]
    for now, after in zip(sigmas, sigmas[1:]):
        time = 1000 * now.reshape(1)
        with_caption = transformer(clip, time, caption).sample
        without = transformer(clip, time, empty).sample
        clip = clip + (after - now) * (without + GUIDANCE * (with_caption - without))
    return clip[0]


def parts_saved(transformer, encoder):
    parts = {"transformer": transformer, "text_encoder": encoder}
    return {f"{part}/{name}": t for part, model in parts.items() for name, t in saved(model).items()}


def wan(folder):
    torch.manual_seed(0)
    transformer = randomise(WanTransformer3DModel(**TRANSFORMER))
    encoder = randomise(tf.UMT5EncoderModel(tf.UMT5Config(**TEXT)))
    expected = {}
    generator = torch.Generator().manual_seed(5)
    values = sum(f * h * w for (f, h, w), _, _ in CLIPS) * TRANSFORMER["in_channels"]
    loss = 0
    for i, (size, sigma, ids) in enumerate(CLIPS):
        video, noise = torch.randn(2, TRANSFORMER["in_channels"], *size, generator=generator)
        noisy, target = (1 - sigma) * video + sigma * noise, noise - video
        output = transformer(noisy[None], torch.tensor([1000 * sigma]), embeddings(encoder, ids)).sample[0]
        loss = loss + (output - target).square().sum() / values
        expected |= {f"noisy.{i}": noisy, f"target.{i}": target, f"output.{i}": output.detach()}
        expected |= {f"sigma.{i}": torch.tensor([sigma]), f"ids.{i}": torch.tensor(ids).float()}
    with torch.no_grad():
        noise = torch.randn(TRANSFORMER["in_channels"], *CLIPS[0][0], generator=generator)
        expected |= {"sample.noise": noise, "sample.clip": sampled(transformer, encoder, noise)}
    loss.backward()
    expected["loss"] = loss.detach().reshape(1)
    named = [*transformer.named_parameters(), *encoder.named_parameters()]
    weights = [parameter.detach().clone() for _, parameter in named]
    groups = [
        dict(params=[p for n, p in named if decays(n)], weight_decay=WEIGHT_DECAY),
        dict(params=[p for n, p in named if not decays(n)], weight_decay=0.0),
    ]
    torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON).step()
    stepped = {name: tensor.clone() for name, tensor in parts_saved(transformer, encoder).items()}
    with torch.no_grad():
        for _, parameter in named:
            parameter.copy_(parameter.grad)
        for name, gradient in parts_saved(transformer, encoder).items():
            expected[f"gradient_norm:{name}"] = gradient.double().norm().float().reshape(1)
            expected[f"gradient:{name}"] = spread(gradient)
            expected[f"step:{name}"] = spread(stepped[name])
        for (_, parameter), weight in zip(named, weights):
            parameter.copy_(weight)
    write(folder, transformer, encoder, expected)


def write(folder, transformer, encoder, expected):
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    transformer.save_pretrained(folder / "transformer", max_shard_size="40KB")
    encoder.save_pretrained(folder / "text_encoder")
    text = {"model_index.json": INDEX, "scheduler/scheduler_config.json": SCHEDULER}
    text["vae/config.json"] = dict(_class_name="AutoencoderKLWan", latents_mean=[0.5, -0.5, 0.0, 1.0], latents_std=[2.0, 1.0, 0.5, 4.0])
    text["counts.json"] = counts()
    own = tokenizer()
    own.save_pretrained(folder / "tokenizer")
    encoded = own([clean(c) for c in CAPTIONS], padding="max_length", max_length=CAPTION_TOKENS, truncation=True)
    ids = [[i for i, used in zip(*row) if used] for row in zip(encoded.input_ids, encoded.attention_mask)]
    text["captions.json"] = [dict(caption=caption, ids=row) for caption, row in zip(CAPTIONS, ids)]
    for name, value in text.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value, ensure_ascii=False) + "\n")
    save_file({k: v.detach().contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    total = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    print(f"{folder.name}: {total} bytes, loss {expected['loss'].item():.6f}")
    if total > MAX_BYTES:
        print(f"  larger than {MAX_BYTES} bytes: make it smaller")


def tokenizer():
    """A Unigram tokenizer with the parts of UMT5's, of the pieces that CAPTIONS need."""
    letters = sorted({letter for text in CAPTIONS for letter in text if not letter.isspace()})
    words = ["▁a", "▁red", "▁circle", "▁moves", "▁left", "▁two", "▁bird", "s", "▁one", "▁tree"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(word, -2.0) for word in words] + [(letter, -6.0) for letter in letters if letter != "s"]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    made.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    metaspace = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    made.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return tf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def clean(text):
    """What the pipeline does to a prompt without entities and broken letters."""
    return re.sub(r"\s+", " ", text.strip()).strip()


def counts():
    """Published transformers with the text encoder, and their numbers of parameters."""
    def parameters(model):
        return sum(p.numel() for p in model.parameters())

    with torch.device("meta"):
        text = parameters(tf.UMT5EncoderModel(tf.UMT5Config(**UMT5_XXL)))
        models = {"Wan2.1-T2V-1.3B": WAN_1_3B, "Wan2.1-T2V-14B": WAN_14B}
        return [
            dict(
                name=name,
                transformer_parameters=parameters(WanTransformer3DModel(**config)),
                text_encoder_parameters=text,
                transformer=dict(_class_name="WanTransformer3DModel") | config,
                text_encoder=UMT5_XXL,
            )
            for name, config in models.items()
        ]


MODELS = {"wan": wan}

"""Adapters of PEFT on the tiny models of other families."""

import torch
import transformers as tf

from hf_fixtures import qwen_vl
from hf_fixtures.common import case, pixels, sequence, write_adapter
from hf_fixtures.text import IDS


def adapt(base, targets, **options):
    """A model with adapters of random values."""
    import peft

    config = peft.LoraConfig(r=3, lora_alpha=6.0, target_modules=targets, **options)
    model = peft.get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(17)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(parameter * (1 + 0.2 * noise) if "magnitude" in name else 0.3 * noise)
    return model


def base(folder, architecture, name):
    """The tiny model that is adapted."""
    return architecture.from_pretrained(folder.parent / name).float().eval()


def llama(folder, **options):
    model = adapt(base(folder, tf.LlamaForCausalLM, "llama-biases"), ["q_proj", "down_proj"], **options)
    write_adapter(folder, model, [case(sequence([IDS[:n]])[0]) for n in (12, 5)], "llama-biases")


def qwen2_5_vl(folder):
    """The outputs of attention and of feed-forward networks, in the encoder and in the decoder."""
    plain = base(folder, tf.Qwen2_5_VLForConditionalGeneration, "qwen2-5-vl")
    cases = qwen_vl.documents(plain, qwen_vl.Video(6, 16, 16, seconds=0.5))
    model = adapt(plain, ["attn.proj", "o_proj", "down_proj"])
    write_adapter(folder, model, cases, "qwen2-5-vl")


def qwen2_5_vl_qkv(folder):
    """Queries and values, of which the encoder has one tensor with the keys: one adapter of twice the rank, in blocks."""
    plain = base(folder, tf.Qwen2_5_VLForConditionalGeneration, "qwen2-5-vl")
    cases = qwen_vl.documents(plain, qwen_vl.Video(6, 16, 16, seconds=0.5))
    paths = [f"model.visual.blocks.{i}.attn.qkv" for i in range(plain.config.vision_config.depth)]
    patterns = dict(rank_pattern=dict.fromkeys(paths, 6), alpha_pattern=dict.fromkeys(paths, 12.0))
    model = adapt(plain, ["attn.qkv", "q_proj", "v_proj"], **patterns)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "qkv.lora_B" in name:
                query, key, value = parameter.chunk(3)
                query[:, 3:], key[:], value[:, :3] = 0, 0, 0
    write_adapter(folder, model, cases, "qwen2-5-vl")


def llava(folder):
    """Queries and values of the decoder, which have the names of those of the encoder."""
    plain = base(folder, tf.LlavaForConditionalGeneration, "llava-clip")
    px = plain.config.vision_config.image_size
    images = pixels(2, 3, px, px)
    features = plain.model.get_image_features(images[:1], return_dict=True).pooler_output[0]
    ids, offsets = sequence([[5, 17], len(features), [41, 7], len(features), [60, 22, 9, 2]])
    cases = [case(ids, offsets, [[image] for image in images], pixel_values=images), case(sequence([IDS[:6]])[0])]
    model = adapt(plain, r".*language_model.*\.(q_proj|v_proj)")
    write_adapter(folder, model, cases, "llava-clip")


MODELS = {
    "peft-lora": llama,
    "peft-dora": lambda folder: llama(folder, use_dora=True, use_rslora=True),
    "peft-qwen2-5-vl": qwen2_5_vl,
    "peft-qwen2-5-vl-qkv": qwen2_5_vl_qkv,
    "peft-llava": llava,
}
PUBLISHED = {}

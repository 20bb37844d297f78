"""What `transformers` takes where a config.json says nothing: files with few fields, and the values of their configs."""

import json

import transformers as tf

#: The fields of a text model that a file must give.
TEXT = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=30, num_attention_heads=32, vocab_size=1000)
#: Those of a decoder inside another model.
INNER = dict(hidden_size=4096, num_attention_heads=32)
QWEN = dict(TEXT, hidden_size=8192, num_attention_heads=64)
MROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}

FILES = {
    "llama": dict(architectures=["LlamaForCausalLM"], **TEXT),
    "mistral": dict(architectures=["MistralForCausalLM"], **TEXT),
    "mistral without windows": dict(architectures=["MistralForCausalLM"], sliding_window=None, **TEXT),
    "qwen2": dict(architectures=["Qwen2ForCausalLM"], **TEXT),
    "qwen2 with windows": dict(architectures=["Qwen2ForCausalLM"], use_sliding_window=True, **TEXT),
    "qwen3": dict(architectures=["Qwen3ForCausalLM"], **TEXT),
    "qwen3 with windows": dict(architectures=["Qwen3ForCausalLM"], use_sliding_window=True, **TEXT),
    "qwen2_vl": dict(architectures=["Qwen2VLForConditionalGeneration"], vision_config={"hidden_size": 8192}, **QWEN),
    "qwen2_vl with sections": dict(
        architectures=["Qwen2VLForConditionalGeneration"], vision_config={"hidden_size": 8192}, **MROPE, **QWEN
    ),
    "qwen2_5_vl": dict(
        architectures=["Qwen2_5_VLForConditionalGeneration"], vision_config={"out_hidden_size": 8192}, text_config=QWEN
    ),
    "qwen3_vl": dict(
        architectures=["Qwen3VLForConditionalGeneration"], vision_config={"out_hidden_size": 8192}, text_config=QWEN
    ),
    "llava": dict(architectures=["LlavaForConditionalGeneration"], vision_config={}, text_config=INNER),
    "llava with siglip": dict(
        architectures=["LlavaForConditionalGeneration"],
        vision_config={"model_type": "siglip_vision_model"},
        text_config={"model_type": "mistral"},
    ),
    "llava_next": dict(architectures=["LlavaNextForConditionalGeneration"], vision_config={"image_size": 336}, text_config=INNER),
    "llava_onevision": dict(
        architectures=["LlavaOnevisionForConditionalGeneration"], vision_config={"image_size": 384}, text_config=INNER
    ),
    "idefics3": dict(architectures=["Idefics3ForConditionalGeneration"], vision_config={"image_size": 256}, text_config=INNER),
    "smolvlm": dict(architectures=["SmolVLMForConditionalGeneration"], vision_config={"image_size": 256}, text_config=INNER),
    "qwen2_audio": dict(
        architectures=["Qwen2AudioForConditionalGeneration"], audio_config={}, text_config={"model_type": "qwen2"}
    ),
}


def config_of(file):
    """The config that `transformers` makes of a file."""
    architecture = getattr(tf, file["architectures"][0])
    return architecture.config_class.from_dict(json.loads(json.dumps(file)))


def decoder(config):
    """The values of a decoder."""
    text = config.get_text_config()
    get = lambda name, default=None: getattr(text, name, default)
    windowed = get("sliding_window") is not None and (
        text.model_type == "mistral" or bool(get("use_sliding_window", False))
    )
    types = get("layer_types")
    return dict(
        hidden=text.hidden_size,
        ffn=text.intermediate_size,
        layers=text.num_hidden_layers,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=get("head_dim") or text.hidden_size // text.num_attention_heads,
        vocab=text.vocab_size,
        positions=text.max_position_embeddings,
        norm_epsilon=text.rms_norm_eps,
        theta=text.rope_parameters["rope_theta"],
        tied=bool(getattr(config, "tie_word_embeddings", False)),
        window=get("sliding_window") if windowed else None,
        full_layers=[i for i, kind in enumerate(types or []) if kind == "full_attention"] if windowed else [],
    )


def encoder(config):
    """The values of a vision or audio encoder; None without one."""
    for name in ("vision_config", "audio_config"):
        found = getattr(config, name, None)
        if found is None:
            continue
        first = lambda *names: next(getattr(found, name) for name in names if hasattr(found, name))
        ffn = getattr(found, "intermediate_size", None) or getattr(found, "encoder_ffn_dim", None)
        hidden = first("embed_dim", "hidden_size", "d_model")
        return dict(
            hidden=hidden,
            ffn=int(ffn or hidden * found.mlp_ratio),
            layers=first("depth", "num_hidden_layers", "encoder_layers"),
            heads=first("num_heads", "num_attention_heads", "encoder_attention_heads"),
            patch=getattr(found, "patch_size", None),
            norm_epsilon=getattr(found, "layer_norm_eps", None),
        )
    return None


def write(path):
    """Writes the files with their values."""
    rows = []
    for name, file in FILES.items():
        config = config_of(file)
        rows.append(dict(name=name, config=file, decoder=decoder(config), encoder=encoder(config)))
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"[\n{lines}\n]\n")

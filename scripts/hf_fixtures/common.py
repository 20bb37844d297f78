"""What all families share: random weights, and what training must equal."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

VOCAB = 96
IMAGE_TOKEN = 90
TEXT = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
)
# The step of AdamW; the same numbers are in dip-burn/tests/suite/published/torch.rs.
LEARNING_RATE = 0.01
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
EPSILON = 1e-8
# Values of a tensor that are compared: all of small tensors, otherwise evenly spread ones.
SAMPLES = 48
MAX_BYTES = 250_000


def randomise(model, dtype=torch.float32):
    """Sets all weights, also norms and biases, to random values that are exact in `dtype`."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            value = 1 + 0.2 * noise if is_norm(name) and name.endswith("weight") else 0.15 * noise
            parameter.copy_(value.to(dtype).float())
    return model.float().eval()


def is_norm(name):
    """True for the scale or shift of a norm."""
    layer = name.split(".")[-2] if "." in name else name
    return "norm" in layer or "layrnorm" in layer or layer == "ln_q"


def decays(name):
    """True if weight decay applies: to all but norms, biases and the magnitudes of adapters."""
    return not is_norm(name) and not name.endswith("bias") and "magnitude" not in name


def sequence(pieces):
    """Token ids, with `n` image tokens for every integer n, and the offset of each image."""
    ids, offsets = [], []
    for piece in pieces:
        if isinstance(piece, int):
            offsets.append(len(ids))
            ids += [IMAGE_TOKEN] * piece
        else:
            ids += piece
    return torch.tensor([ids]), offsets


def pixels(*shape, seed=3):
    """Normalised pixel values, such as the image processor of a model makes them."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def case(ids, offsets=(), images=(), arrangements=(), sounds=(), more=None, **inputs):
    """One sequence.

    `images` is, for each picture, the list of its views: [3, height, width], or [frames, 3, height, width] of a video;
    `arrangements` says, in numbers of the family, how the views of each picture become tokens; `sounds` is, for each sound, its
    mel frames and the mel values [rows, bands] that the encoder reads; `offsets` is the first token of each picture or sound.
    `inputs` is what the model takes beside the ids, `more` what else is expected of the sequence, by name.
    """
    return dict(
        ids=ids,
        offsets=list(offsets),
        images=list(images),
        arrangements=list(arrangements),
        sounds=list(sounds),
        more=more or {},
        inputs=inputs,
    )


def spread(tensor):
    """Evenly spread values of a tensor."""
    flat = tensor.detach().float().reshape(-1)
    count = min(len(flat), SAMPLES)
    return flat[[i * len(flat) // count for i in range(count)]].clone()


def saved(model):
    """The tensors of a model under the names of its files."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        files = sorted(Path(folder).glob("*.safetensors"))
        return {name: tensor for file in files for name, tensor in load_file(file).items()}


def trained(model, cases):
    """Loss, gradients and one step of AdamW on all cases together.

    The loss is the mean cross-entropy of all places; the target of a place is the next token, and of the last place the first.
    """
    places = sum(c["ids"].shape[1] for c in cases)
    total = 0
    expected = {}
    for i, c in enumerate(cases):
        logits = model(input_ids=c["ids"], attention_mask=torch.ones_like(c["ids"]), **c["inputs"]).logits[0]
        targets = c["ids"][0].roll(-1)
        total = total + torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / places
        expected[f"logits.{i}"] = logits.detach()
        expected[f"input_ids.{i}"] = c["ids"][0].float()
        expected[f"offsets.{i}"] = torch.tensor(c["offsets"], dtype=torch.float32)
        expected |= {f"{name}.{i}": value for name, value in c["more"].items()}
        for j, views in enumerate(c["images"]):
            for k, view in enumerate(views):
                expected[f"pixels.{i}.{j}.{k}"] = view
        for j, numbers in enumerate(c["arrangements"]):
            expected[f"arrangement.{i}.{j}"] = torch.tensor(numbers, dtype=torch.float32)
        for j, (frames, mel) in enumerate(c["sounds"]):
            expected[f"mel.{i}.{j}"] = mel
            expected[f"mel_frames.{i}.{j}"] = torch.tensor([float(frames)])
    total.backward()
    expected["loss"] = total.detach().reshape(1)
    named = list(model.named_parameters())
    groups = [
        dict(params=[p for n, p in named if decays(n)], weight_decay=WEIGHT_DECAY),
        dict(params=[p for n, p in named if not decays(n)], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
    optimizer.step()
    stepped = {name: tensor.clone() for name, tensor in saved(model).items()}
    with torch.no_grad():
        for _, parameter in named:
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    unused = []
    for name, gradient in saved(model).items():
        norm = gradient.double().norm().item()
        if norm == 0:
            unused.append(name)
            continue
        expected[f"gradient_norm:{name}"] = torch.tensor([norm], dtype=torch.float32)
        expected[f"gradient:{name}"] = spread(gradient)
        expected[f"step:{name}"] = spread(stepped[name])
    return {k: v for k, v in expected.items() if v.numel()}, unused


def write(folder, model, cases, shard="1GB", dtype=torch.float32):
    """Writes a model of random weights, and `expected.safetensors` with, for case i, image j and view k,

    input_ids.i [s], logits.i [s, vocab], offsets.i [images], pixels.i.j.k [3, height, width] or [frames, 3, height, width],
    arrangement.i.j [numbers] in families with arrangements,
    loss [1] over all cases, and for each tensor of the files NAME that is trained
    gradient_norm:NAME [1], gradient:NAME and step:NAME [up to SAMPLES], values of its gradient and of itself after a step.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    expected, unused = trained(model, cases)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    total = sum(f.stat().st_size for f in folder.iterdir())
    config = json.loads((folder / "config.json").read_text())
    print(f"{folder.name}: {total} bytes, architecture {config['architectures']}, loss {expected['loss'].item():.6f}")
    if unused:
        print(f"  {len(unused)} tensors without a gradient, such as {unused[0]}")
    if total > MAX_BYTES:
        print(f"  larger than {MAX_BYTES} bytes: make it smaller")


def write_adapter(folder, model, cases, base):
    """Writes an adapter of PEFT with random values, and `expected.safetensors` as `write` does, for the tensors of the adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | dict(base_model_name_or_path=base), indent=2) + "\n")
    (folder / "README.md").unlink(missing_ok=True)
    expected, _ = trained(model, cases)
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(f"{folder.name}: loss {expected['loss'].item():.6f}")

"""Documents with pictures: token ids and logits of the whole chain of processor, tokenizer and model.

The models are those of the families `llava` and `idefics`; they must be there.
"""

import json

import numpy as np
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models

from hf_fixtures.common import IMAGE_TOKEN, VOCAB

MARKS = ["<fake_token_around_image>", "<global-img>"]
TILES = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
CHARACTERS = list("abcdefghijklmnopqrstuvwxyz \n")


def tokenizer():
    """One token per character, and the special tokens of pictures."""
    vocab = {c: i for i, c in enumerate(CHARACTERS)}
    free = [i for i in range(len(vocab), VOCAB) if i != IMAGE_TOKEN]
    special = dict(zip(MARKS + TILES + ["<end_of_utterance>", "<video>"], free))
    special["<image>"] = IMAGE_TOKEN
    rest = {f"unused{i}": i for i in free[len(special) - 1 :]}
    inner = Tokenizer(models.BPE(vocab=vocab | special | rest, merges=[]))
    inner.decoder = decoders.Fuse()
    tokens = tf.PreTrainedTokenizerFast(tokenizer_object=inner)
    tokens.add_special_tokens({"additional_special_tokens": sorted(special, key=special.get)})
    assert tokens.convert_tokens_to_ids("<image>") == IMAGE_TOKEN and len(tokens) == VOCAB, len(tokens)
    return tokens


def drawn(width, height):
    """A picture of waves."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    colours = [np.sin(x / 5 + k) * 60 + np.cos(y / (3 + k)) * 60 + 128 for k in range(3)]
    return Image.fromarray(np.stack(colours, -1).astype(np.uint8))


def write(folder, processor, model, cases):
    """Writes files of the processor, pictures, and `expected.safetensors`: input_ids.i and logits.i of case i.

    A case is a text with marks and the sizes of its pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    expected, texts, number = {}, [], 0
    for i, (text, sizes) in enumerate(cases):
        pictures = [drawn(*size) for size in sizes]
        for picture in pictures:
            picture.save(folder / f"picture-{number}.png")
            number += 1
        inputs = processor(text=[text], images=[pictures] if pictures else None, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        expected[f"input_ids.{i}"], expected[f"logits.{i}"] = inputs["input_ids"][0].float(), logits
        texts.append(text)
    processor.image_processor.save_pretrained(folder)
    processor.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "texts.json").write_text(json.dumps(texts) + "\n")
    save_file({k: v.contiguous() for k, v in expected.items()}, folder / "expected.safetensors")
    print(f"{folder.name}: {[len(expected[f'input_ids.{i}']) for i in range(len(cases))]} tokens")


def model_of(folder, architecture):
    return architecture.from_pretrained(folder.parent.parent / folder.name, dtype=torch.float32).eval()


CASES = [
    ("a wide one <image> and more", [(57, 20)]),
    ("first <image>\nthen <image> both", [(30, 41), (22, 17)]),
    ("no picture at all", []),
]


def llava(folder):
    model = model_of(folder, tf.LlavaForConditionalGeneration)
    image = tf.LlavaImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = tf.LlavaProcessor(image, tokenizer(), 4, "default", num_additional_image_tokens=1)
    write(folder, processor, model, CASES)


def next_(folder):
    model = model_of(folder, tf.LlavaNextForConditionalGeneration)
    image = tf.LlavaNextImageProcessor(
        size={"shortest_edge": 12},
        crop_size={"height": 12, "width": 12},
        image_grid_pinpoints=model.config.image_grid_pinpoints,
    )
    processor = tf.LlavaNextProcessor(image, tokenizer(), 4, "default", num_additional_image_tokens=1)
    write(folder, processor, model, CASES)


def onevision(folder):
    model = model_of(folder, tf.LlavaOnevisionForConditionalGeneration)
    image = tf.LlavaOnevisionImageProcessor(
        size={"height": 18, "width": 18}, image_grid_pinpoints=model.config.image_grid_pinpoints
    )
    video, ratio = tf.LlavaOnevisionVideoProcessor(), model.config.vision_aspect_ratio
    processor = tf.LlavaOnevisionProcessor(image, tokenizer(), video, 16, "full", vision_aspect_ratio=ratio)
    write(folder, processor, model, CASES)


def split(folder, architecture, image_processor, length):
    model = model_of(folder, architecture)
    image = image_processor(size={"longest_edge": 48}, max_image_size={"longest_edge": 24})
    processor = tf.Idefics3Processor(image, tokenizer(), image_seq_len=length)
    write(folder, processor, model, CASES)


def idefics3(folder):
    split(folder, tf.Idefics3ForConditionalGeneration, tf.Idefics3ImageProcessor, 9)


def smolvlm(folder):
    split(folder, tf.SmolVLMForConditionalGeneration, tf.SmolVLMImageProcessor, 4)


MODELS = {
    "documents/llava-clip": llava,
    "documents/llava-next": next_,
    "documents/llava-onevision": onevision,
    "documents/idefics3": idefics3,
    "documents/smolvlm": smolvlm,
}
PUBLISHED = {}

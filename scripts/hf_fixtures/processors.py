"""Image processors: layouts, tokens and pixel values of drawn pictures, and picture files of many formats.

Writes `processors/`: a folder of files for each processor, `expected.json` with what transformers makes of pictures that the
test draws by the same formula, and `pictures/` with files and what Pillow reads from them.
"""

import io
import json
import shutil
import struct
import zlib

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer, models
from transformers import (
    AutoImageProcessor,
    CLIPImageProcessor,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlavaImageProcessor,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    SiglipImageProcessor,
    SmolVLMImageProcessor,
)
from transformers.image_transforms import convert_to_rgb

PUBLISHED = {}
SAMPLES = 3
SIZES = [
    (64, 48), (100, 37), (37, 100), (500, 333), (300, 700), (28, 28), (1, 1), (2, 150), (199, 1), (57, 56), (640, 480),
]
TILE = 56
PATCH = 14
PINPOINTS = [[TILE * rows, TILE * columns] for rows, columns in [(1, 2), (2, 1), (2, 2), (3, 1), (1, 3)]]
ALL_PINPOINTS = [[TILE * rows, TILE * columns] for rows in range(1, 7) for columns in range(1, 7)]


def drawn(width, height):
    """The picture that the test draws, too."""
    y, x = np.mgrid[0:height, 0:width]
    colours = [((7 * x + 3 * y + 50 * c) ^ (x * y >> (3 + c))) & 255 for c in range(3)]
    return Image.fromarray(np.stack(colours, -1).astype(np.uint8))


def squares(side, patch=PATCH):
    return (side // patch) ** 2


def qwen(output, processor):
    """Pixels `[3, height, width]` of the only view from patches in blocks."""
    frames, rows, columns = output["image_grid_thw"][0].tolist()
    patch, merge, depth = processor.patch_size, processor.merge_size, processor.temporal_patch_size
    values = output["pixel_values"].reshape(rows // merge, columns // merge, merge, merge, 3, depth, patch, patch)
    assert torch.equal(values[:, :, :, :, :, 0], values[:, :, :, :, :, -1])
    pixels = values[:, :, :, :, :, 0].permute(4, 0, 2, 5, 1, 3, 6).reshape(3, rows * patch, columns * patch)
    return [pixels], "<image>" * (frames * rows * columns // merge**2)


def one_square(output, processor):
    pixels = output["pixel_values"][0]
    return [pixels], "<image>" * squares(pixels.shape[-1])


def tokenizer():
    special = ["<image>", "<video>", "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
    tokens = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a")))
    tokens.add_special_tokens({"additional_special_tokens": special})
    return tokens


def with_tokens(make):
    """Views and the text that stands for a picture, by the whole processor of a model."""

    def views(output, processor):
        return list(output["pixel_values"][0]), make(processor).replace_image_token(output, 0)

    return views


def llava_next(processor):
    return LlavaNextProcessor(processor, tokenizer(), PATCH, "default", num_additional_image_tokens=1)


def onevision(processor):
    video, ratio = LlavaOnevisionVideoProcessor(), "anyres_max_4"
    return LlavaOnevisionProcessor(processor, tokenizer(), video, squares(TILE), "full", vision_aspect_ratio=ratio)


def idefics(processor):
    side = processor.max_image_size["longest_edge"]
    return Idefics3Processor(processor, tokenizer(), image_seq_len=squares(side, 2 * PATCH))


def cropped(side, shortest=None):
    return {"size": {"shortest_edge": shortest or side}, "crop_size": {"height": side, "width": side}}


def exact(side):
    return {"size": {"height": side, "width": side}}


def split(tiles):
    return {"size": {"longest_edge": tiles * TILE}, "max_image_size": {"longest_edge": TILE}}


HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
QWEN3 = {"patch_size": 16, "size": {"shortest_edge": 4096, "longest_edge": 65536}, **HALF}
ROWS = {"return_row_col_info": True}
# Class, settings, what takes its output apart, arguments of the call.
PROCESSORS = {
    "qwen2_vl": (Qwen2VLImageProcessor, {}, qwen, {}),
    "qwen2_5_vl": (Qwen2VLImageProcessor, {"min_pixels": 6272, "max_pixels": 50176}, qwen, {}),
    "qwen3_vl": (Qwen2VLImageProcessor, QWEN3, qwen, {}),
    "clip": (CLIPImageProcessor, cropped(70), one_square, {}),
    "clip_border": (CLIPImageProcessor, cropped(70, 41), one_square, {}),
    "clip_bytes": (CLIPImageProcessor, {**cropped(70), "do_rescale": False, "resample": 2}, one_square, {}),
    "clip_plain": (CLIPImageProcessor, {**cropped(70), "do_normalize": False, "resample": 1}, one_square, {}),
    "siglip": (SiglipImageProcessor, {**exact(76), "resample": 2}, one_square, {}),
    "llava": (LlavaImageProcessor, cropped(70), one_square, {}),
    "llava_pad": (LlavaImageProcessor, {**cropped(70), "do_pad": True}, one_square, {}),
    "llava_next": (
        LlavaNextImageProcessor,
        {**cropped(TILE), "image_grid_pinpoints": PINPOINTS},
        with_tokens(llava_next),
        {},
    ),
    "llava_onevision": (
        LlavaOnevisionImageProcessor,
        {**exact(TILE), "image_grid_pinpoints": ALL_PINPOINTS},
        with_tokens(onevision),
        {},
    ),
    "idefics3": (Idefics3ImageProcessor, split(4), with_tokens(idefics), ROWS),
    "smolvlm": (SmolVLMImageProcessor, split(3), with_tokens(idefics), ROWS),
    "smolvlm_whole": (
        SmolVLMImageProcessor,
        {**split(3), "do_image_splitting": False},
        with_tokens(idefics),
        ROWS,
    ),
}


def view(pixels, patch):
    """Size, checksum of the values of whole patches as 32-bit floats, and some of these values."""
    height, width = (side // patch * patch for side in pixels.shape[1:])
    values = pixels[:, :height, :width].contiguous().numpy().astype("<f4")
    flat = values.reshape(-1)
    samples = [float(flat[i]) for i in np.linspace(0, len(flat) - 1, SAMPLES).astype(int)]
    return {"height": height, "width": width, "crc32": zlib.crc32(values.tobytes()), "samples": samples}


def shortened(text):
    """A text with runs of image tokens as their number."""
    parts, run = [], 0
    for part in text.replace("<image>", "\0"):
        if part == "\0":
            run += 1
            continue
        if run:
            parts.append(run)
            run = 0
        if parts and isinstance(parts[-1], str):
            parts[-1] += part
        else:
            parts.append(part)
    return parts + [run] if run else parts


def expected(name, processor, apart, arguments):
    patch = getattr(processor, "patch_size", None) or PATCH
    pictures = []
    for width, height in SIZES:
        picture = drawn(width, height)
        calls = [(1, picture)]
        if name == "llava_onevision":
            calls.append((2, [[picture, picture]]))
        for number, images in calls:
            if "image_grid_pinpoints" in PROCESSORS[name][1] and max(width, height) > 20 * min(width, height):
                # The grid of tiles has no column but the newlines; such pictures are refused.
                continue
            views, text = apart(processor(images, return_tensors="pt", **arguments), processor)
            views = [view(pixels, patch) for pixels in views]
            text = shortened(text)
            pictures.append({"width": width, "height": height, "pictures": number, "text": text, "views": views})
    return pictures


def encoded(picture, format, **settings):
    buffer = io.BytesIO()
    picture.save(buffer, format, **settings)
    return buffer.getvalue()


def raw_png(values, depth, colour):
    """A PNG of samples `[height, width, channels]`; Pillow does not write all depths."""
    height, width, _ = values.shape

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b""
    for row in values:
        if depth == 16:
            rows += b"\0" + row.astype(">u2").tobytes()
        else:
            bits = "".join(format(int(value), f"0{depth}b") for value in row.reshape(-1))
            bits += "0" * (-len(bits) % 8)
            rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def files():
    """Picture files by name."""
    picture = drawn(31, 22)
    smooth = picture.resize((12, 9)).resize((31, 22), Image.BICUBIC)
    y, x = np.mgrid[0:22, 0:31]
    alpha = Image.fromarray(((9 * x + 5 * y) & 255).astype(np.uint8))
    rgba, grey = picture.copy(), picture.convert("L")
    rgba.putalpha(alpha)
    grey_alpha = grey.copy()
    grey_alpha.putalpha(alpha)
    palette, one_bit = picture.quantize(12), picture.convert("1")
    return {
        **jpegs(smooth, grey),
        **turned(picture, smooth),
        **pngs(picture, rgba, grey, grey_alpha, palette, one_bit),
        "rgb.webp": encoded(picture, "WEBP", lossless=True),
        "rgba.webp": encoded(rgba, "WEBP", lossless=True, exact=True),
        "lossy.webp": encoded(smooth, "WEBP", quality=80),
        "palette.gif": encoded(palette, "GIF"),
        "clear.gif": encoded(palette, "GIF", transparency=3),
        "animated.gif": encoded(
            palette, "GIF", save_all=True, append_images=[palette.transpose(Image.FLIP_LEFT_RIGHT)], duration=100
        ),
        "rgb.bmp": encoded(picture, "BMP"),
        "rgba.bmp": encoded(rgba, "BMP"),
        "grey.bmp": encoded(grey, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "one_bit.bmp": encoded(one_bit, "BMP"),
        "raw.tif": encoded(picture, "TIFF"),
        "lzw.tif": encoded(picture, "TIFF", compression="tiff_lzw"),
        "deflate.tif": encoded(picture, "TIFF", compression="tiff_adobe_deflate"),
        "rgba.tif": encoded(rgba, "TIFF", compression="tiff_lzw"),
        "grey.tif": encoded(grey, "TIFF", compression="tiff_lzw"),
        "cmyk.tif": encoded(picture.convert("CMYK"), "TIFF", compression="tiff_lzw"),
    }


def jpegs(smooth, grey):
    out = {}
    for name, sampling in [("444", 0), ("422", 1), ("420", 2)]:
        out[f"rgb{name}.jpg"] = encoded(smooth, "JPEG", quality=90, subsampling=sampling)
        out[f"progressive{name}.jpg"] = encoded(smooth, "JPEG", quality=80, subsampling=sampling, progressive=True)
    out["grey.jpg"] = encoded(grey, "JPEG", quality=90)
    out["cmyk.jpg"] = encoded(smooth.convert("CMYK"), "JPEG", quality=90)
    out["cmyk420.jpg"] = encoded(smooth.convert("CMYK"), "JPEG", quality=90, subsampling=2)
    out["restarts.jpg"] = encoded(smooth, "JPEG", quality=70, restart_marker_blocks=2)
    return out


def turned(picture, smooth):
    out, exif = {}, Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        out[f"exif{orientation}.png"] = encoded(picture.crop((0, 0, 7, 5)), "PNG", exif=exif)
    exif[0x0112] = 6
    out["exif6.jpg"] = encoded(smooth, "JPEG", quality=90, exif=exif)
    out["exif6.webp"] = encoded(picture, "WEBP", lossless=True, exif=exif)
    out["exif6.tif"] = encoded(picture, "TIFF", exif=exif)
    return out


def pngs(picture, rgba, grey, grey_alpha, palette, one_bit):
    deep = (np.asarray(rgba).astype(np.uint32) * 257 + 100 & 65535).astype(np.uint16)
    return {
        "rgb.png": encoded(picture, "PNG"),
        "rgba.png": encoded(rgba, "PNG"),
        "grey.png": encoded(grey, "PNG"),
        "grey_alpha.png": encoded(grey_alpha, "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "one_bit.png": encoded(one_bit, "PNG"),
        "palette_clear.png": encoded(palette, "PNG", transparency=bytes([0, 128, 255, 7])),
        "grey_clear.png": encoded(grey, "PNG", transparency=grey.getpixel((3, 4))),
        "rgb_clear.png": encoded(picture, "PNG", transparency=picture.getpixel((3, 4))),
        "rgb16.png": raw_png(deep[..., :3], 16, 2),
        "rgba16.png": raw_png(deep, 16, 6),
        "grey16.png": raw_png(deep[..., :1] >> 7, 16, 0),
        "grey_alpha16.png": raw_png(deep[..., 2:], 16, 4),
        "grey2.png": raw_png((np.asarray(grey) >> 6)[..., None], 2, 0),
        "grey4.png": raw_png((np.asarray(grey) >> 4)[..., None], 4, 0),
    }


def read(data):
    """The pixels that the processors see: upright, over white."""
    return convert_to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), return_numpy=True)


def lines(entries):
    return "{\n" + ",\n".join(f"{json.dumps(name)}: {value}" for name, value in entries.items()) + "\n}\n"


def write(folder):
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "pictures").mkdir(parents=True)
    processors = {}
    for name, (kind, settings, apart, arguments) in PROCESSORS.items():
        kind(**settings).save_pretrained(folder / name)
        processor = AutoImageProcessor.from_pretrained(folder / name)
        assert type(processor) is kind, (name, type(processor))
        pictures = expected(name, processor, apart, arguments)
        processors[name] = "[\n" + ",\n".join(map(json.dumps, pictures)) + "\n]"
    (folder / "llava_onevision" / "config.json").write_text('{"vision_aspect_ratio": "anyres_max_4"}\n')
    (folder / "expected.json").write_text(lines(processors))
    pictures = {}
    for name, data in files().items():
        (folder / "pictures" / name).write_bytes(data)
        pixels = read(data)
        row = pixels[len(pixels) // 2].tobytes().hex()
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        pictures[name] = json.dumps({**size, "crc32": zlib.crc32(pixels.tobytes()), "row": row})
    (folder / "pictures.json").write_text(lines(pictures))


MODELS = {"processors": write}

"""Parquet files in the layout of the Hugging Face hub: conversations with pictures, and sounds and videos with captions.

    python3 scripts/hf_fixtures/parquet.py dip-burn/tests/fixtures
"""

import io
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def picture(colour):
    out = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def write(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy", row_group_size=2)


def media(root):
    """Sounds and videos beside their captions."""
    medium = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    read = lambda name: {"bytes": (root / name).read_bytes(), "path": name}
    sound, video = read("sounds/byte.wav"), read("processors/pictures/animated.gif")
    write(root / "parquet/media.parquet", pa.table({
        "text": pa.array(["A tone.", "It moves."]),
        "audio": pa.array([sound, None], medium),
        "video": pa.array([None, video], medium),
    }))


def chats(path):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    turn = pa.struct([("from", pa.string()), ("value", pa.string())])
    ask = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A red square."}]
    both = [{"from": "human", "value": "Compare <image> and <image>."}, {"from": "gpt", "value": "Two colours."}]
    talk = [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]
    table = pa.table({
        "id": pa.array([1, 2, 3, 4]),
        "images": pa.array([[picture("red")], [picture("blue"), picture("lime")], [], None], pa.list_(image)),
        "conversations": pa.array([ask, both, talk, talk], pa.list_(turn)),
    })
    write(path, table)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    chats(root / "parquet/chats.parquet")
    media(root)

"""A Parquet file in the layout of the Hugging Face hub.

    python3 scripts/hf_fixtures/parquet.py dip-burn/tests/fixtures/parquet/chats.parquet
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


def main(path):
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
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy", row_group_size=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

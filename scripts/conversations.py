#!/usr/bin/env python3
"""Pictures of many sizes and proportions with conversations about them, in the format of LLaVA.

    scripts/conversations.py photographs FOLDER           # the Debian package tuxpaint-stamps-default (GPL-2); needs apt-get and dpkg-deb
    scripts/conversations.py emoji FOLDER SHARDS          # the shards of scripts/openmoji-shards.sh
    ... --square 160                                      # the same pictures, squeezed into squares of this side

FOLDER gets `train.json` and `held-out.json` beside `pictures`. Both packages show single things on nothing. A picture here is one
to three of them on a coloured ground, from 56 to 224 pixels in either direction; a conversation is about one picture or two. One
thing in ten is held out: no picture of it is trained on. `held-out.json` has one question a conversation, because dip evaluates the
first answer. Needs Pillow.
"""

import argparse
import io
import json
import random
import subprocess
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

PACKAGE = "tuxpaint-stamps-default"
KINDS = {
    "animals": "An animal.", "plants": "A plant.", "food": "Food.", "clothes": "Something to wear.", "vehicles": "A vehicle.",
    "household": "A tool.", "hobbies": "A tool.", "sports": "A tool.",
}
DRAWN = ("cartoon", "utensils_drawn", "flags", "roadsigns")
SIDES = (56, 224)
LONGEST_NAME = 6
HELD_OUT_ROUNDS = 3
WORDS = ["one", "two", "three"]
# Questions, each asked in several ways.
NAME = ["What is in the picture?", "What do you see?", "What does the picture show?"]
KIND = ["What kind of thing is it?", "Is it an animal, a plant, food, something to wear, a vehicle or a tool?"]
COUNT = ["How many things are there?", "Count the things in the picture."]
SHAPE = ["Is the picture wide or tall?", "Which is the picture, wide or tall?"]
SECOND = ["What is in the second picture?", "And what does the other picture show?"]


class Thing:
    """One thing: its name, its kind if known, and its picture with transparency."""

    def __init__(self, name, kind, picture):
        self.name, self.kind, self.picture = name, kind, picture


def photographs():
    """The stamps that are photographs of one thing with a short name."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", PACKAGE], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "-x", next(Path(folder).glob("*.deb")), folder], check=True)
        root = Path(folder, "usr/share/tuxpaint/stamps")
        for path in sorted(root.rglob("*.png")):
            kind, text = path.relative_to(root).parts[0], path.with_suffix(".txt")
            if kind not in KINDS or any(word in str(path) for word in DRAWN) or not text.exists():
                continue
            name = text.read_text(errors="replace").splitlines()[0].strip()
            if name.startswith(("A ", "An ")) and len(name.split()) <= LONGEST_NAME:
                yield Thing(name, KINDS[kind], Image.open(path).convert("RGBA").copy())


def emoji(shards):
    """The pictures of WebDataset shards with their names."""
    for shard in sorted(Path(shards).glob("*.tar")):
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}
        for name, data in members.items():
            if name.endswith(".png"):
                text = members[name.removesuffix("png") + "txt"].decode()
                yield Thing(text, None, Image.open(io.BytesIO(data)).convert("RGBA"))


def compose(things, rng):
    """A picture of the things, in a row or a column."""
    width, height = (rng.randint(*SIDES) for _ in range(2))
    wide = width >= height
    picture = Image.new("RGB", (width, height), tuple(rng.randint(90, 255) for _ in range(3)))
    cell = (width // len(things), height) if wide else (width, height // len(things))
    for i, thing in enumerate(things):
        stamp = thing.picture
        if rng.random() < 0.5:
            stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scale = rng.uniform(0.75, 1.0) * min(cell[0] / stamp.width, cell[1] / stamp.height)
        stamp = stamp.resize([max(1, round(side * scale)) for side in stamp.size], Image.Resampling.BICUBIC)
        x, y = (rng.randint(0, max(0, cell[d] - stamp.size[d])) for d in range(2))
        corner = (x + i * cell[0], y) if wide else (x, y + i * cell[1])
        picture.paste(stamp, corner, stamp)
    return picture


def named(things):
    """The names of all things as one answer."""
    names = [thing.name.rstrip(".!") for thing in things]
    names = names[:1] + [name[0].lower() + name[1:] for name in names[1:]]
    return " and ".join(names) + "."


def questions(things, picture, rng):
    """What one can ask about a picture, with the answers."""
    yield rng.choice(NAME), named(things)
    if len(things) == 1 and things[0].kind:
        yield rng.choice(KIND), things[0].kind
    yield rng.choice(COUNT), WORDS[len(things) - 1].capitalize() + "."
    if max(picture.size) > 1.2 * min(picture.size):
        yield rng.choice(SHAPE), "Wide." if picture.width > picture.height else "Tall."


def conversation(names, turns):
    """A conversation about pictures, whose marks come first."""
    turns = [list(turn) for turn in turns]
    turns[0][0] = "<image>\n" * len(names) + turns[0][0]
    pairs = ([{"from": "human", "value": ask}, {"from": "gpt", "value": answer}] for ask, answer in turns)
    image = {"image": names[0]} if len(names) == 1 else {"images": names}
    return image | {"conversations": [turn for pair in pairs for turn in pair]}


class Writer:
    """Writes pictures under numbers."""

    def __init__(self, folder, square):
        self.folder, self.square, self.count = folder, square, 0

    def write(self, picture):
        if self.square:
            picture = picture.resize((self.square, self.square), Image.Resampling.BICUBIC)
        name = f"{self.count:05}.jpg"
        picture.save(self.folder / name, quality=92)
        self.count += 1
        return name


def train(things, rounds, writer, rng):
    """Each thing in `rounds` pictures, one conversation in four about two of them."""
    for _ in range(rounds):
        rng.shuffle(things)
        waiting = list(things)
        while waiting:
            shown = [waiting.pop() for _ in range(min(len(waiting), rng.choice([1, 1, 1, 2, 3])))]
            picture = compose(shown, rng)
            names, turns = [writer.write(picture)], list(questions(shown, picture, rng))
            rng.shuffle(turns)
            if waiting and rng.random() < 0.25:
                other = [waiting.pop()]
                names.append(writer.write(compose(other, rng)))
                turns = [(ask.replace("the picture", "the first picture"), answer) for ask, answer in turns[:2]]
                turns.append((rng.choice(SECOND), named(other)))
            yield conversation(names, turns)


def held_out(things, writer, rng):
    """One question a conversation about things that are not trained on."""
    for thing in things * HELD_OUT_ROUNDS:
        others = [other for other in things if other is not thing]
        shown = [thing] + rng.sample(others, rng.choice([0, 0, 0, 1, 2]))
        picture = compose(shown, rng)
        name = writer.write(picture)
        for turn in questions(shown, picture, rng):
            yield conversation([name], [turn])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=["photographs", "emoji"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("shards", nargs="?", default="data/openmoji")
    parser.add_argument("--square", type=int, help="side of a square that every picture is squeezed into")
    parser.add_argument("--rounds", type=int, default=8, help="pictures of each thing")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    things = list(photographs() if arguments.source == "photographs" else emoji(arguments.shards))
    rng.shuffle(things)
    kept = max(1, len(things) // 8)
    (arguments.folder / "pictures").mkdir(parents=True, exist_ok=True)
    writer = Writer(arguments.folder / "pictures", arguments.square)
    parts = {"held-out": held_out(things[:kept], writer, rng), "train": train(things[kept:], arguments.rounds, writer, rng)}
    for part, conversations in parts.items():
        conversations = list(conversations)
        (arguments.folder / f"{part}.json").write_text(json.dumps(conversations, indent=1) + "\n")
        answers = sum(len(c["conversations"]) // 2 for c in conversations)
        print(f"{part}: {len(conversations)} conversations with {answers} answers")
    print(f"{len(things)} things, {kept} held out, {writer.count} pictures in {arguments.folder / 'pictures'}")


if __name__ == "__main__":
    main()

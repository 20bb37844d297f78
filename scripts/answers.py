#!/usr/bin/env python3
"""Compares the answers of a run of dip with those of transformers, and counts right answers by kind of question.

    scripts/answers.py MODEL DATA METRICS                 # folder of a model, folder of scripts/conversations.py, metrics.jsonl

MODEL is the merged or exported folder of the run. The answers of dip are those of the last evaluation in METRICS. Needs torch,
transformers and Pillow.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import torch
import transformers as tf
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from conversations import COUNT, KIND, NAME, SHAPE

KINDS = {"name": NAME, "kind": KIND, "count": COUNT, "shape": SHAPE}


def kind_of(question):
    return next(kind for kind, texts in KINDS.items() if question in texts)


def pairs(conversations):
    """Questions without marks, and their answers."""
    for conversation in conversations:
        turns = [turn["value"].replace("<image>\n", "") for turn in conversation["conversations"]]
        yield from zip(turns[::2], turns[1::2])


def usual_answers(conversations):
    """The most frequent answer of each kind in the data that is trained on."""
    answers = {kind: Counter() for kind in KINDS}
    for question, answer in pairs(conversations):
        if any(question in texts for texts in KINDS.values()):
            answers[kind_of(question)][answer] += 1
    return {kind: count.most_common(1)[0][0] for kind, count in answers.items() if count}


class Answerer:
    """Answers as a user of transformers would ask: chat template, image processor, greedy generation."""

    def __init__(self, folder):
        self.words = tf.AutoTokenizer.from_pretrained(folder)
        self.pictures = Qwen2VLImageProcessorPil.from_pretrained(folder)
        self.model = tf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, question, picture):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text = self.words.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)
        images = self.pictures(images=[picture], return_tensors="pt")
        count = int(images["image_grid_thw"][0].prod()) // self.pictures.merge_size**2
        mark = self.words.convert_ids_to_tokens(self.model.config.image_token_id)
        inputs = self.words(text.replace(mark, mark * count), return_tensors="pt", add_special_tokens=False)
        inputs.pop("token_type_ids", None)
        kinds = (inputs["input_ids"] == self.model.config.image_token_id).int()
        with torch.no_grad():
            out = self.model.generate(**inputs, **images, mm_token_type_ids=kinds, max_new_tokens=24)
        return self.words.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("metrics", type=Path)
    arguments = parser.parse_args()
    lines = [json.loads(line) for line in arguments.metrics.read_text().splitlines()]
    captions = [line["evaluation"]["captions"] for line in lines if line.get("evaluation", {}).get("captions")][-1]
    held_out = json.loads((arguments.data / "held-out.json").read_text())
    usual = usual_answers(json.loads((arguments.data / "train.json").read_text()))
    answerer = Answerer(arguments.model)
    same, asked, right, guessed = 0, Counter(), Counter(), Counter()
    for conversation, (question, answer), caption in zip(held_out, pairs(held_out), captions):
        assert caption["expected"].strip() == answer, "the metrics are of other held-out data"
        picture = Image.open(arguments.data / "pictures" / conversation["image"])
        theirs, ours = answerer.answer(question, picture).strip(), caption["generated"].strip()
        if theirs == ours:
            same += 1
        else:
            print(f"{conversation['image']} {question} dip: {ours!r}, transformers: {theirs!r}")
        kind = kind_of(question)
        asked[kind] += 1
        right[kind] += ours == answer
        guessed[kind] += usual.get(kind) == answer
    print(f"{same} of {sum(asked.values())} answers are the same in transformers")
    for kind, count in asked.items():
        print(f"{kind}: {right[kind]} of {count} right; always {usual.get(kind)!r}: {guessed[kind]}")


if __name__ == "__main__":
    main()

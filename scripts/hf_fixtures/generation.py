"""Scores of the logits processors of `transformers`, in the order in which `generate` runs them."""

import itertools
import json

import torch
from transformers.generation import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)


def processors(temperature, top_k, top_p, penalty):
    """The processors that `generate` makes of these settings."""
    all = LogitsProcessorList()
    if penalty != 1.0:
        all.append(RepetitionPenaltyLogitsProcessor(penalty))
    if temperature != 1.0:
        all.append(TemperatureLogitsWarper(temperature))
    if top_k != 0:
        all.append(TopKLogitsWarper(top_k))
    if top_p < 1.0:
        all.append(TopPLogitsWarper(top_p))
    return all


def write(path):
    """Writes logits, tokens that have occurred, and the scores under several settings."""
    generator = torch.Generator().manual_seed(11)
    logits = (3 * torch.randn(40, generator=generator)).float()
    logits[7] = logits[3]
    tokens = torch.randint(0, 40, (9,), generator=generator)
    cases = []
    for temperature, top_k, top_p, penalty in itertools.product((1.0, 0.1, 1.7), (0, 1, 12), (1.0, 0.9, 0.3), (1.0, 1.3)):
        scores = processors(temperature, top_k, top_p, penalty)(tokens[None], logits[None].clone())[0]
        scores = [None if score == -float("inf") else score for score in scores.tolist()]
        cases.append(
            dict(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty, scores=scores)
        )
    rows = ",\n".join(json.dumps(case) for case in cases)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'{{"logits": {json.dumps(logits.tolist())},\n"tokens": {json.dumps(tokens.tolist())},\n"cases": [\n{rows}\n]}}\n'
    )

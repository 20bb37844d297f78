"""Numbers of parameters of published models, on the meta device: shapes without memory."""

import json

import torch
import transformers as tf


def parameters(model):
    """The number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters())


def build(config):
    """The model of a config.json, without memory."""
    architecture = getattr(tf, config["architectures"][0])
    config = dict(config)
    with torch.device("meta"):
        return architecture(architecture.config_class.from_dict(config))


def write(path, family):
    """Writes the configs of a family with their numbers of parameters."""
    rows = []
    for name, config in family.PUBLISHED.items():
        model = build(config)
        unused = family.unused(model) if hasattr(family, "unused") else 0
        total = parameters(model)
        rows.append(dict(name=name, parameters=total, unused=unused, config=config))
        print(f"{name}: {total} parameters, {unused} unused")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f"[\n{lines}\n]\n")

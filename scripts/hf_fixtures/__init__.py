"""Tiny random models of every architecture, with what `transformers` computes for them.

Only needed to rebuild the fixtures; the tests read the files in the repository.

    pip install torch transformers safetensors
    cd scripts
    python3 -m hf_fixtures models ../dip-burn/tests/fixtures/hf [NAME ...]
    python3 -m hf_fixtures defaults ../dip-core/src/hf/defaults.json
    python3 -m hf_fixtures generation ../dip-burn/tests/fixtures/generation.json
    python3 -m hf_fixtures counts ../dip-burn/tests/fixtures/published [FAMILY ...]

`models` writes a folder per model: the model as `save_pretrained` writes it, and `expected.safetensors` (see `common.write`).
`counts` writes a file per family: the configs of published models with the number of their parameters, counted without memory.
`defaults` writes files with few fields and what `transformers` takes for the others; `generation` scores of its logits processors.

A family is a module of this package with
    MODELS = {"name": function that takes the folder to write}
    PUBLISHED = {"name": {fields of the published config.json}}, and optionally
    unused(model) -> number of parameters that training does not need, such as a last layer whose output nobody reads.
"""

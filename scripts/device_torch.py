#!/usr/bin/env python3
"""Times the decoder and the diffusion transformer of `device-report.py` in PyTorch, eager and compiled, in bf16.

Prints one line of JSON for each run: tokens/s and model FLOPs utilisation of forward, backward and AdamW on one sequence of the
model's length at a time, as one rank of dip computes them. Needs torch; not part of the build.
"""

import argparse
import json
import time

import torch
import torch.nn.functional as F
from torch import nn

# Layers, width, feed-forward width, heads, key-value heads, tokens of a sequence, vocabulary (0 for none).
SHAPES = {
    "vlm-1b language": (24, 1536, 4096, 12, 4, 2048, 32000),
    "vlm-1b vision": (24, 1024, 4096, 16, 16, 256, 0),
    "t2v-1b video": (20, 1536, 6144, 12, 12, 1536, 0),
}
SMALL = {"tiny language": (2, 64, 128, 4, 2, 64, 256), "tiny vision": (2, 64, 128, 4, 4, 16, 0)}
# Dense bf16 FLOP/s by the name of the card.
PEAKS = {"H100": 989e12, "H200": 989e12, "H800": 989e12, "A100": 312e12}
MICROBATCHES = 8
WARM_UP, RUNS = 3, 5


class Layer(nn.Module):
    def __init__(self, width, ffn, heads, kv_heads, causal):
        super().__init__()
        self.heads, self.kv_heads, self.causal = heads, kv_heads, causal
        kv = width // heads * kv_heads
        self.norms = nn.ModuleList([nn.RMSNorm(width, eps=1e-6) for _ in range(2)])
        self.query, self.output = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
        self.key, self.value = nn.Linear(width, kv, bias=False), nn.Linear(width, kv, bias=False)
        self.gate = nn.Linear(width, ffn, bias=False) if causal else None
        self.up, self.down = nn.Linear(width, ffn, bias=False), nn.Linear(ffn, width, bias=False)

    def rotate(self, x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-b, a], dim=-1) * sin

    def forward(self, x, cos, sin):
        b, s, m = x.shape
        y = self.norms[0](x)
        split = lambda t, heads: t.view(b, s, heads, -1).transpose(1, 2)
        q, k = split(self.query(y), self.heads), split(self.key(y), self.kv_heads)
        q, k, v = self.rotate(q, cos, sin), self.rotate(k, cos, sin), split(self.value(y), self.kv_heads)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.output(y.transpose(1, 2).reshape(b, s, m))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y) if self.causal else F.gelu(self.up(y)))


class Stack(nn.Module):
    def __init__(self, shape):
        super().__init__()
        layers, width, ffn, heads, kv_heads, length, vocab = shape
        self.layers = nn.ModuleList([Layer(width, ffn, heads, kv_heads, vocab > 0) for _ in range(layers)])
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, vocab, bias=False) if vocab else None
        half = width // heads // 2
        angles = torch.outer(torch.arange(length).float(), 10000 ** (-torch.arange(half) / half)).repeat(1, 2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, x, targets):
        for layer in self.layers:
            x = layer(x, self.cos.to(x.dtype), self.sin.to(x.dtype))
        x = self.norm(x)
        if self.head is None:
            return x.float().square().mean()
        return F.cross_entropy(self.head(x).flatten(0, 1).float(), targets.flatten())


def flops(shape):
    """Of forward and backward of one sequence."""
    layers, width, ffn, heads, kv_heads, length, vocab = shape
    weights = 2 * width * width * (1 + kv_heads / heads) + (3 if vocab else 2) * width * ffn
    attention = 4 * length * width * (0.5 if vocab else 1)
    return 3 * length * (layers * (2 * weights + attention) + 2 * width * vocab)


def measure(name, shape, device, compiled):
    torch.manual_seed(0)
    _, width, _, _, _, length, vocab = shape
    model = Stack(shape).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device == "cuda")
    run = torch.compile(model) if compiled else model
    x = torch.randn(1, length, width, device=device)
    targets = torch.randint(0, max(vocab, 1), (1, length), device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def step():
        for _ in range(MICROBATCHES):
            with torch.autocast(device, dtype=torch.bfloat16):
                run(x, targets).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(WARM_UP):
        step()
    wait()
    start = time.perf_counter()
    for _ in range(RUNS):
        step()
    wait()
    seconds = (time.perf_counter() - start) / RUNS
    card = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = next((peak for key, peak in PEAKS.items() if key in card), None)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    print(
        json.dumps(
            {
                "model": name,
                "mode": "compiled" if compiled else "eager",
                "torch": torch.__version__,
                "iteration_s": seconds,
                "tokens_per_s": MICROBATCHES * length / seconds,
                "mfu": MICROBATCHES * flops(shape) / seconds / peak if peak else None,
                "peak_gib": memory,
            }
        ),
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    device = options.device if options.device == "cuda" and torch.cuda.is_available() else "cpu"
    for compiled in [False, True]:
        for name, shape in (SMALL if options.small else SHAPES).items():
            try:
                measure(name, shape, device, compiled)
            except Exception as error:
                # One mode that fails, such as a missing compiler, leaves the others.
                mode = "compiled" if compiled else "eager"
                print(json.dumps({"model": name, "mode": mode, "failed": str(error)[:300]}), flush=True)


if __name__ == "__main__":
    main()

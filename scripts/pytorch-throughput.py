#!/usr/bin/env python3
"""Measures the training throughput of one layer in PyTorch on one core.

Needs `pip install torch`; not part of the build. Shapes and method are those of `cargo run --release --example throughput`:
stacks of one and two layers run alternately, and the difference of their medians is the time of a layer, forward and backward.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

BATCH = 2
RUNS, WARM_UP = 31, 5
SHAPES = [
    ("decoder", 256, 128),
    ("decoder", 256, 512),
    ("decoder", 512, 512),
    ("vit", 256, 64),
    ("vit", 256, 256),
    ("vit", 512, 256),
]


def ffn_width(kind, hidden):
    return hidden * 11 // 4 if kind == "decoder" else hidden * 4


class Layer(nn.Module):
    def __init__(self, kind, hidden):
        super().__init__()
        self.decoder = kind == "decoder"
        self.heads = hidden // 64
        bias = not self.decoder
        ffn = ffn_width(kind, hidden)
        norm = nn.RMSNorm if self.decoder else nn.LayerNorm
        self.attention_norm, self.ffn_norm = norm(hidden, eps=1e-6), norm(hidden, eps=1e-6)
        self.query, self.key, self.value, self.output = (nn.Linear(hidden, hidden, bias) for _ in range(4))
        self.gate = nn.Linear(hidden, ffn, bias) if self.decoder else None
        self.up, self.down = nn.Linear(hidden, ffn, bias), nn.Linear(ffn, hidden, bias)

    def rotate(self, x, cos, sin):
        a, b = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-b, a], dim=-1) * sin

    def forward(self, x, cos, sin):
        b, s, m = x.shape
        y = self.attention_norm(x)
        split = lambda t: t.view(b, s, self.heads, -1).transpose(1, 2)
        q, k, v = split(self.query(y)), split(self.key(y)), split(self.value(y))
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.decoder)
        x = x + self.output(y.transpose(1, 2).reshape(b, s, m))
        y = self.ffn_norm(x)
        inner = F.silu(self.gate(y)) * self.up(y) if self.decoder else F.gelu(self.up(y))
        return x + self.down(inner)


def once(layers, x, dy, tables):
    for layer in layers:
        layer.zero_grad(set_to_none=True)
    x = x.detach().requires_grad_()
    start = time.perf_counter()
    y = x
    for layer in layers:
        y = layer(y, *tables)
    y.backward(dy)
    return time.perf_counter() - start


def seconds(kind, hidden, length):
    layers = [Layer(kind, hidden) for _ in range(2)]
    x, dy = torch.randn(BATCH, length, hidden), torch.randn(BATCH, length, hidden)
    angles = torch.outer(torch.arange(length).float(), 10000 ** (-torch.arange(32) / 32)).repeat(1, 2)
    tables = angles.cos(), angles.sin()
    one, two = [], []
    for run in range(WARM_UP + RUNS):
        times = once(layers[:1], x, dy, tables), once(layers, x, dy, tables)
        if run >= WARM_UP:
            one.append(times[0])
            two.append(times[1])
    return statistics.median(two) - statistics.median(one)


def flops(kind, hidden, length):
    matrices = 3 if kind == "decoder" else 2
    weights = 4 * hidden * hidden + matrices * hidden * ffn_width(kind, hidden)
    return 3 * BATCH * length * (2 * weights + 4 * length * hidden)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'layer':8} {'hidden':>6} {'length':>6} {'tokens/s':>12} {'GFLOP/s':>9}   torch {torch.__version__}")
    for kind, hidden, length in SHAPES:
        s = seconds(kind, hidden, length)
        print(f"{kind:8} {hidden:6} {length:6} {BATCH * length / s:12.0f} {flops(kind, hidden, length) / s / 1e9:9.1f}")


if __name__ == "__main__":
    main()

"""Networks in the shape of well-known ones, with random weights: their speed, not their answers."""

from __future__ import annotations

import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inner: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.first = nn.Sequential(nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width))
        self.second = nn.Sequential(
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        )
        self.third = nn.Sequential(nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out))
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inner != out:
            self.short = nn.Sequential(
                nn.Conv2d(inner, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.first(x))
        y = self.third(torch.relu(self.second(y)))
        return torch.relu(y + self.short(x))


class ResNet50(nn.Module):
    """25.6 M parameters, 8.2 GFLOP at 224. **Source:** He et al. 2016, v1.5 (stride in the 3x3)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]  # fmt: skip
        inner = 64
        for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(count):
                layers.append(Bottleneck(inner, width, stride if index == 0 else 1))
                inner = 4 * width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2048, 1000)
        self.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.body(image).mean((2, 3)))
        return scores


class ConvAct(nn.Sequential):
    def __init__(self, inner: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inner, out, kernel, stride, (kernel - 1) // 2, bias=False),
            nn.BatchNorm2d(out),
            nn.SiLU(),
        )


class Csp(nn.Module):
    def __init__(self, inner: int, out: int, count: int, *, has_short: bool = True) -> None:
        super().__init__()
        half = out // 2
        self.left, self.right = ConvAct(inner, half), ConvAct(inner, half)
        self.blocks = nn.ModuleList(
            nn.Sequential(ConvAct(half, half), ConvAct(half, half, 3)) for _ in range(count)
        )
        self.join = ConvAct(out, out)
        self.has_short = has_short

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.left(x)
        for block in self.blocks:
            y = y + block(y) if self.has_short else block(y)
        joined: torch.Tensor = self.join(torch.cat([y, self.right(x)], 1))
        return joined


class Yolo(nn.Module):
    """YOLOv5s-shaped: CSP backbone, pyramid pooling, two-way neck, three heads of 255 channels.
    7.2 M parameters. **Source:** the published v5s layout (depth 0.33, width 0.5)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(
            ConvAct(3, 32, 6, 2), ConvAct(32, 64, 3, 2), Csp(64, 64, 1), ConvAct(64, 128, 3, 2),
            Csp(128, 128, 2),
        )  # fmt: skip
        self.middle = nn.Sequential(ConvAct(128, 256, 3, 2), Csp(256, 256, 3))
        self.deep = nn.Sequential(ConvAct(256, 512, 3, 2), Csp(512, 512, 1))
        self.pool_in, self.pool_out = ConvAct(512, 256), ConvAct(1024, 512)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.up_a, self.up_b = ConvAct(512, 256), ConvAct(256, 128)
        self.neck_a = Csp(512, 256, 1, has_short=False)
        self.neck_b = Csp(256, 128, 1, has_short=False)
        self.down_b, self.neck_c = ConvAct(128, 128, 3, 2), Csp(256, 256, 1, has_short=False)
        self.down_c, self.neck_d = ConvAct(256, 256, 3, 2), Csp(512, 512, 1, has_short=False)
        self.heads = nn.ModuleList(nn.Conv2d(width, 255, 1) for width in (128, 256, 512))
        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.eval()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        fine = self.stem(image)
        middle = self.middle(fine)
        deep = self.pool_in(self.deep(middle))
        pooled = [deep]
        for _ in range(3):
            pooled.append(self.pool(pooled[-1]))
        top = self.up_a(self.pool_out(torch.cat(pooled, 1)))
        side = self.up_b(self.neck_a(torch.cat([self.grow(top), middle], 1)))
        small = self.neck_b(torch.cat([self.grow(side), fine], 1))
        medium = self.neck_c(torch.cat([self.down_b(small), side], 1))
        large = self.neck_d(torch.cat([self.down_c(medium), top], 1))
        return self.heads[0](small), self.heads[1](medium), self.heads[2](large)


class Gpt2Decode(nn.Module):
    """One step of GPT-2 124M: a token against 128 cached ones. **Source:** Radford et al. 2019."""

    def __init__(self, layers: int = 12, heads: int = 12, width: int = 768) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.width = heads, width
        self.tokens = nn.Embedding(50257, width)
        self.positions = nn.Embedding(1024, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.down = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.vocabulary = nn.Linear(width, 50257, bias=False)
        self.eval()

    def forward(
        self, input_ids: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Shapes: ids `[1, 1]`; keys and values `[layers, heads, past, width / heads]`."""
        x = self.tokens(input_ids)[0] + self.positions.weight[keys.shape[2]]
        new_keys, new_values = [], []
        for layer in range(len(self.qkv)):
            query, key, value = self.qkv[layer](self.norms[2 * layer](x)).chunk(3, -1)
            shape = (self.heads, 1, self.width // self.heads)
            query, key, value = query.view(shape), key.view(shape), value.view(shape)
            new_keys.append(key)
            new_values.append(value)
            every = torch.cat([keys[layer], key], 1)
            weights = (query @ every.transpose(1, 2)) * shape[2] ** -0.5
            seen = torch.softmax(weights, -1) @ torch.cat([values[layer], value], 1)
            x = x + self.out[layer](seen.reshape(1, self.width))
            y = torch.nn.functional.gelu(self.up[layer](self.norms[2 * layer + 1](x)))
            x = x + self.down[layer](y)
        return self.vocabulary(self.last(x)), torch.stack(new_keys), torch.stack(new_values)

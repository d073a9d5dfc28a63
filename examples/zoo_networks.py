"""Small networks of kinds that no package builds at such a size, for examples/zoo.py. Needs torch, torchvision, transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import torchvision
import transformers
from torch import Tensor, nn


def _conv(inputs: int, outputs: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), act())


class Deeplab(nn.Module):
    """Lite R-ASPP on MobileNet v3: dilated convolutions and a bilinear resize to the size of the picture."""

    def __init__(self) -> None:
        super().__init__()
        models = torchvision.models.segmentation
        self.net = models.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.net(x)["out"]
        return found


class UNet(nn.Module):
    """U-Net of two levels with transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down, self.low = _conv(3, 16), _conv(16, 32), _conv(32, 32)
        self.up, self.join, self.last = nn.ConvTranspose2d(32, 16, 2, 2), _conv(48, 16), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down(self.first(x))
        low = self.up(self.low(F.max_pool2d(first, 2)))
        found: Tensor = self.last(self.join(torch.cat([first, low], 1)))
        return found


class Detector(nn.Module):
    """A head in the manner of YOLO v8: SiLU, distributions of distances, boxes in pixels beside class scores in one output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(_conv(a, b, 2, nn.SiLU) for a, b in ((3, 16), (16, 24), (24, 32))))
        self.next = _conv(32, 48, 2, nn.SiLU)
        self.boxes = nn.ModuleList(nn.Conv2d(c, 32, 1) for c in (32, 48))
        self.scores = nn.ModuleList(nn.Conv2d(c, 6, 1) for c in (32, 48))
        self.register_buffer("steps", torch.arange(8.0).reshape(1, 8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = self.body(x)
        levels = (near, self.next(near))
        boxes = torch.cat([head(level).flatten(2) for head, level in zip(self.boxes, levels, strict=True)], 2)
        scores = torch.cat([head(level).flatten(2) for head, level in zip(self.scores, levels, strict=True)], 2)
        spread = boxes.unflatten(1, (4, 8)).transpose(1, 2).softmax(1)
        left, right = F.conv2d(spread, self.steps).squeeze(1).chunk(2, 1)
        sizes = [(level.shape[2], 96 // level.shape[2]) for level in levels]
        places = torch.cat(
            [torch.stack(torch.meshgrid(*2 * [torch.arange(n) + 0.5], indexing="xy")).flatten(1) for n, _ in sizes], 1
        )
        strides = torch.cat([torch.full((n * n,), float(step)) for n, step in sizes])
        low, high = places - left, places + right
        return torch.cat([torch.cat([(low + high) / 2, high - low], 1) * strides, scores.sigmoid()], 1)


class SuperResolution(nn.Module):
    """Residual blocks and a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.blocks = nn.Conv2d(3, 16, 3, 1, 1), nn.ModuleList(_conv(16, 16, 1, nn.PReLU) for _ in range(2))
        self.last = nn.Conv2d(16, 27, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return F.pixel_shuffle(self.last(h), 3)


class Generator(nn.Module):
    """Pictures from noise, by transposed convolutions (DCGAN)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b, stride, padding in ((16, 32, 1, 0), (32, 16, 2, 1), (16, 8, 2, 1)):
            layers += [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        found: Tensor = self.net(z[:, :, None, None])
        return found


class DiffusionBlock(nn.Module):
    """A block of a diffusion model: group norms, SiLU, an embedding of the time, attention over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.conv = nn.Conv2d(8, 16, 3, 1, 1), nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3, 1, 1)
        self.time, self.attend_norm = nn.Linear(16, 16), nn.GroupNorm(4, 16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        waves = t * torch.exp(torch.arange(8.0) * -0.8)
        time = self.time(torch.cat([waves.sin(), waves.cos()], 1))
        x = self.first(x)
        h = x + self.conv(F.silu(self.norm(x))) + time[:, :, None, None]
        rows = self.attend_norm(h).flatten(2).transpose(1, 2)
        q, k, v = (part.reshape(1, -1, 2, 8).transpose(1, 2) for part in self.qkv(rows).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, -1, 16)
        return h + self.out(mixed).transpose(1, 2).reshape(h.shape)


class WhisperEncoder(nn.Module):
    """The encoder of Whisper."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.WhisperConfig(
            vocab_size=60, num_mel_bins=16, d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64,
            decoder_layers=1, decoder_attention_heads=4, max_source_positions=32, pad_token_id=0, bos_token_id=1,
            eos_token_id=2, decoder_start_token_id=1,
        )  # fmt: skip
        self.net = transformers.WhisperModel(config).encoder

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.net(features).last_hidden_state
        return found


class Mixer(nn.Module):
    """Perceptrons across patches and across channels in turns (MLP-Mixer)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.last = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(4))
        self.mixes = nn.ModuleList(
            nn.Sequential(nn.Linear(size, 64), nn.GELU(), nn.Linear(64, size)) for size in (64, 32, 64, 32)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.patches(x).flatten(2).transpose(1, 2)
        for i, (norm, mix) in enumerate(zip(self.norms, self.mixes, strict=True)):
            h = h + (mix(norm(h)) if i % 2 else mix(norm(h).transpose(1, 2)).transpose(1, 2))
        found: Tensor = self.last(h.mean(1))
        return found


class KeywordSpotter(nn.Module):
    """Depthwise separable convolutions over a spectrogram, an average, and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = _conv(1, 16, 2)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6(), nn.Conv2d(16, 16, 1)
                )
                for _ in range(3)
            )
        )
        self.last = nn.Linear(16, 12)

    def forward(self, x: Tensor) -> Tensor:
        return F.log_softmax(self.last(self.blocks(self.first(x)).mean((2, 3))), -1)


class Lstm(nn.Module):
    """A bidirectional LSTM, and a forecast from its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last = nn.LSTM(8, 16, batch_first=True, bidirectional=True), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.net(x)[0][:, -1])
        return found


class Gru(nn.Module):
    """Two layers of GRU, and a class for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last = nn.GRU(8, 16, 2, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.net(x)[0])
        return found


class TemporalConvolution(nn.Module):
    """Dilated causal convolutions with gates (WaveNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(8, 16, 3, dilation=2**i) for i in range(4))
        self.last = nn.Conv1d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            gate, value = layer(F.pad(x, (2 * 2**i, 0))).chunk(2, 1)
            x = x + gate.sigmoid() * value.tanh()
        found: Tensor = self.last(x)
        return found


class GraphNetwork(nn.Module):
    """Graph attention over a dense adjacency, written with einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.source, self.sink, self.last = (
            nn.Linear(8, 16), nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(2, 8)), nn.Linear(16, 3),
        )  # fmt: skip

    def forward(self, nodes: Tensor, adjacency: Tensor) -> Tensor:
        h = self.into(nodes).reshape(1, 12, 2, 8)
        scores = (
            torch.einsum("bnhd,hd->bhn", h, self.source)[..., None]
            + torch.einsum("bnhd,hd->bhn", h, self.sink)[:, :, None]
        )
        scores = F.leaky_relu(scores, 0.2).masked_fill(adjacency[:, None] == 0, -1e9)
        mixed = torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), h).reshape(1, 12, 16)
        found: Tensor = self.last(F.elu(mixed))
        return found


class Recommender(nn.Module):
    """Tables of embeddings, their products, and a perceptron (DLRM)."""

    def __init__(self) -> None:
        super().__init__()
        self.who, self.what = nn.Embedding(50, 16), nn.Embedding(80, 16)
        self.rest, self.last = nn.Linear(5, 16), nn.Sequential(nn.Linear(19, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, who: Tensor, what: Tensor, rest: Tensor) -> Tensor:
        parts: list[Any] = [self.who(who)[:, 0], self.what(what).mean(1), F.relu(self.rest(rest))]
        products = [(a * b).sum(1, keepdim=True) for i, a in enumerate(parts) for b in parts[:i]]
        return torch.sigmoid(self.last(torch.cat([parts[2], *products], 1)))

"""Published detectors of the YOLO family, and a classifier, written anew for benchmarks/architectures.py. Needs torch.

Each takes and gives what the published measurement took and gave. Weights are random.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import _conv, _silu

# -- what the detectors share ------------------------------------------------------------------------------------------


def _cells(values: Sequence[Tensor], strides: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Centre of each cell, counted in cells, and its stride: constants of the graph."""
    centres, widths = [], []
    for value, stride in zip(values, strides, strict=True):
        rows, columns = (torch.arange(int(n)) + 0.5 for n in value.shape[2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres.append(torch.stack([x, y], -1).reshape(-1, 2))
        widths.append(torch.full((x.numel(), 1), float(stride)))
    return torch.cat(centres), torch.cat(widths)


def _corners(centre: Tensor, size: Tensor) -> Tensor:
    half = size * 0.5
    return torch.cat([centre - half, centre + half], -1)


def _centred(near: Tensor, far: Tensor, cells: Tensor, axis: int) -> Tensor:
    """Centre and size of a box from its distances to the centre of its cell."""
    near, far = cells - near, cells + far
    return torch.cat([(near + far) / 2, far - near], axis)


def decoded(
    found: Sequence[Tensor],
    boxes: Sequence[nn.Module],
    classes: Sequence[nn.Module],
    distances: Callable[[Tensor], Tensor],
    strides: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Corners, score and best class of each cell, by YOLO v8's head (Jocher 2023), as they are measured.

    Args:
        found: what the neck gives, (1, channels, rows, columns) for each stride.
        boxes: branches to 64 channels. classes: branches to a channel a class.
        distances: of a box's 4 x 16 channels, the mean of each distribution.
        strides: of what was found.
    """
    corners = torch.cat([conv(v).flatten(2) for conv, v in zip(boxes, found, strict=True)], 2)
    scores = torch.cat([conv(v).flatten(2) for conv, v in zip(classes, found, strict=True)], 2)
    cells, widths = _cells(found, strides)
    near, far = distances(corners).chunk(2, 1)
    corners = (_centred(near, far, cells.T[None], 1) * widths.T).permute(0, 2, 1)
    best, kind = scores.sigmoid().permute(0, 2, 1).max(-1)
    return _corners(corners[..., :2], corners[..., 2:]), best, kind.to(torch.uint8)


def _larger(value: Tensor) -> Tensor:
    return F.interpolate(value, scale_factor=2, mode="nearest")


# -- YOLO v3 tiny ------------------------------------------------------------------------------------------------------


class Yolo3Tiny(nn.Module):
    """YOLO v3 (Redmon 2018), tiny, with YOLO v8's head (Jocher 2023) at strides 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, 16, 32, 64, 128, 256, 512]
        self.body = nn.ModuleList(_silu(a, b, 3) for a, b in itertools.pairwise(widths))
        self.wide = nn.Sequential(_silu(512, 1024, 3), _silu(1024, 256))
        self.low = _silu(256, 512, 3)
        self.lateral = _silu(256, 128)
        self.high = _silu(384, 256, 3)

        def branch(inputs: int, width: int, outputs: int) -> nn.Sequential:
            return nn.Sequential(_silu(inputs, width, 3), _silu(width, width, 3), nn.Conv2d(width, outputs, 1))

        self.boxes = nn.ModuleList(branch(w, 64, 64) for w in (256, 512))
        self.classes = nn.ModuleList(branch(w, 256, 80) for w in (256, 512))
        self.distances = nn.Conv2d(16, 1, 1, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = image
        for conv in self.body[:-1]:
            middle = conv(value)
            value = F.max_pool2d(middle, 2)
        value = F.max_pool2d(F.pad(self.body[-1](value), (0, 1, 0, 1)), 2, 1)
        value = self.wide(value)
        found = [self.high(torch.cat([_larger(self.lateral(value)), middle], 1)), self.low(value)]
        return decoded(found, list(self.boxes), list(self.classes), self._distances, (16, 32))

    def _distances(self, boxes: Tensor) -> Tensor:
        spread = boxes.view(1, 4, 16, -1).transpose(1, 2).softmax(1)
        return self.distances(spread).view(1, 4, -1)


# -- YOLO v6 -----------------------------------------------------------------------------------------------------------


def _rep(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A block of RepVGG (Ding 2021) as it is deployed: its branches are one convolution."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU(inplace=True))


def _reps(inputs: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(_rep(inputs, outputs), *(_rep(outputs, outputs) for _ in range(count - 1)))


class _CspPools(nn.Module):
    """Three pools one after another, in one of two cross-stage partial branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.before = nn.Sequential(_conv(width, half, 1), _conv(half, half), _conv(half, half, 1))
        self.side = _conv(width, half, 1)
        self.after = nn.Sequential(_conv(4 * half, half, 1), _conv(half, half))
        self.join = _conv(width, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        kept = [self.before(value)]
        for _ in range(3):
            kept.append(F.max_pool2d(kept[-1], 5, 1, 2))
        return self.join(torch.cat([self.side(value), self.after(torch.cat(kept, 1))], 1))


class _BiFusion(nn.Module):
    """Joins features of three resolutions at the middle one."""

    def __init__(self, middle: int, large: int, outputs: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(outputs, outputs, 2, 2)
        self.middle = _conv(middle, outputs, 1)
        self.down = nn.Sequential(_conv(large, outputs, 1), _conv(outputs, outputs, 3, 2))
        self.join = _conv(3 * outputs, outputs, 1)

    def forward(self, small: Tensor, middle: Tensor, large: Tensor) -> Tensor:
        return self.join(torch.cat([self.up(small), self.middle(middle), self.down(large)], 1))


class Yolo6(nn.Module):
    """YOLO v6 nano (Li 2022; neck and head of release 3.0, Li 2023), as it is deployed."""

    def __init__(self) -> None:
        super().__init__()
        widths = [16, 32, 64, 128, 256]
        self.stem = _rep(3, 16, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(_rep(a, b, 2), _reps(b, b, count))
            for (a, b), count in zip(itertools.pairwise(widths), (2, 4, 6, 2), strict=True)
        )
        self.pools = _CspPools(256)
        self.lateral = nn.ModuleList([_conv(256, 64, 1), _conv(64, 32, 1)])
        self.fuse = nn.ModuleList([_BiFusion(128, 64, 64), _BiFusion(64, 32, 32)])
        self.top = nn.ModuleList([_reps(64, 64, 4), _reps(32, 32, 4)])
        self.down = nn.ModuleList([_conv(32, 32, 3, 2), _conv(64, 64, 3, 2)])
        self.bottom = nn.ModuleList([_reps(64, 64, 4), _reps(128, 128, 4)])
        self.stems = nn.ModuleList(_silu(w, w) for w in (32, 64, 128))

        def branch(outputs: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Sequential(_silu(w, w, 3), nn.Conv2d(w, outputs, 1)) for w in (32, 64, 128))

        self.classes, self.boxes = branch(80), branch(4)

    def _features(self, image: Tensor) -> list[Tensor]:
        kept = [self.stem(image)]
        for stage in self.stages:
            kept.append(stage(kept[-1]))
        _, two, three, four, five = kept
        low = self.lateral[0](self.pools(five))
        middle = self.lateral[1](self.top[0](self.fuse[0](low, four, three)))
        high = self.top[1](self.fuse[1](middle, three, two))
        joined = self.bottom[0](torch.cat([self.down[0](high), middle], 1))
        return [high, joined, self.bottom[1](torch.cat([self.down[1](joined), low], 1))]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = [stem(value) for stem, value in zip(self.stems, self._features(image), strict=True)]
        classes = [conv(v).sigmoid().flatten(2) for conv, v in zip(self.classes, found, strict=True)]
        boxes = [conv(v).flatten(2) for conv, v in zip(self.boxes, found, strict=True)]
        scores = torch.cat(classes, -1).permute(0, 2, 1)
        near, far = torch.cat(boxes, -1).permute(0, 2, 1).split(2, -1)
        cells, strides = _cells(found, (8, 16, 32))
        # A confidence of one goes in with the rest, and comes out again.
        sure = torch.ones(1, scores.shape[1], 1)
        every = torch.cat([_centred(near, far, cells, -1) * strides, sure, scores], -1)
        scores = every[..., 5:] * every[..., 4:5]
        best = [part.max(-1) for part in scores.split(5000, 1)]
        kinds = torch.cat([kind.to(torch.int32) for _, kind in best], -1).to(torch.uint8)
        return _corners(every[..., :2], every[..., 2:4]), torch.cat([score for score, _ in best], -1), kinds


# -- YOLO v7 tiny ------------------------------------------------------------------------------------------------------


def _leaky(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> Any:
    return _conv(inputs, outputs, size, stride, act=nn.LeakyReLU(0.1, inplace=True))


class _Elan(nn.Module):
    """Efficient layer aggregation: two 3x3 convolutions in a row, and all that goes through them joined."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.side = _leaky(inputs, width)
        self.body = nn.ModuleList([_leaky(inputs, width), _leaky(width, width, 3), _leaky(width, width, 3)])
        self.join = _leaky(4 * width, outputs)

    def forward(self, value: Tensor) -> Tensor:
        kept = [self.side(value)]
        for conv in self.body:
            value = conv(value)
            kept.append(value)
        return self.join(torch.cat(kept[::-1], 1))


class _Pools(nn.Module):
    """Pools of three sizes side by side, in one of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.side, self.before = _leaky(512, 256), _leaky(512, 256)
        self.after, self.join = _leaky(1024, 256), _leaky(512, 256)

    def forward(self, value: Tensor) -> Tensor:
        before = self.before(value)
        pools = [F.max_pool2d(before, size, 1, size // 2) for size in (13, 9, 5)]
        return self.join(torch.cat([self.after(torch.cat([*pools, before], 1)), self.side(value)], 1))


class Yolo7Tiny(nn.Module):
    """YOLO v7 tiny (Wang 2022): three anchors a cell, with the largest class of each box."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_leaky(3, 32, 3, 2), _leaky(32, 64, 3, 2))
        sizes = [(64, 32, 64), (64, 64, 128), (128, 128, 256), (256, 256, 512)]
        self.stages = nn.ModuleList(_Elan(*size) for size in sizes)
        self.pools = _Pools()
        self.up = nn.ModuleList([_leaky(256, 128), _leaky(128, 64)])
        self.lateral = nn.ModuleList([_leaky(256, 128), _leaky(128, 64)])
        self.top = nn.ModuleList([_Elan(256, 64, 128), _Elan(128, 32, 64)])
        self.down = nn.ModuleList([_leaky(64, 128, 3, 2), _leaky(128, 256, 3, 2)])
        self.bottom = nn.ModuleList([_Elan(256, 64, 128), _Elan(512, 128, 256)])
        self.heads = nn.ModuleList(nn.Sequential(_leaky(w, 2 * w, 3), nn.Conv2d(2 * w, 255, 1)) for w in (64, 128, 256))
        # Width and height of three anchors at each stride; any values give the same graph.
        self.register_buffer("anchors", torch.rand(3, 1, 3, 1, 2))

    def _features(self, image: Tensor) -> list[Tensor]:
        kept = [self.stages[0](self.stem(image))]
        for stage in self.stages[1:]:
            kept.append(stage(F.max_pool2d(kept[-1], 2)))
        five = self.pools(kept[3])
        four = self.top[0](torch.cat([self.lateral[0](kept[2]), _larger(self.up[0](five))], 1))
        three = self.top[1](torch.cat([self.lateral[1](kept[1]), _larger(self.up[1](four))], 1))
        lower = self.bottom[0](torch.cat([self.down[0](three), four], 1))
        return [three, lower, self.bottom[1](torch.cat([self.down[1](lower), five], 1))]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        centres, sizes, rest = [], [], []
        values = self._features(image)
        for i, (stride, head, value) in enumerate(zip((8, 16, 32), self.heads, values, strict=True)):
            rows, columns = value.shape[2:]
            raw = head(value).sigmoid().view(1, 3, 85, rows, columns).permute(0, 1, 3, 4, 2)
            corner = _cells([value], [stride])[0].view(1, 1, rows, columns, 2) - 0.5
            centres.append(((raw[..., :2] * 2 - 0.5 + corner) * stride).reshape(1, -1, 2))
            size = raw[..., 2:4].reshape(1, 3, -1, 2)
            sizes.append(((size * 2) ** 2 * self.anchors[i]).reshape(1, -1, 2))
            rest.append(raw[..., 4:].reshape(1, -1, 81))
        boxes = _corners(torch.cat(centres, 1), torch.cat(sizes, 1))
        sure, classes = torch.cat(rest, 1).split((1, 80), -1)
        scores, best = classes.max(-1)
        return boxes, scores * sure.squeeze(-1), best.to(torch.uint8)


# -- GPUNet ------------------------------------------------------------------------------------------------------------


class _Gate(nn.Module):
    """Squeeze and excitation (Hu 2018)."""

    def __init__(self, width: int, squeezed: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(width, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, width, 1), nn.Sigmoid())

    def forward(self, value: Tensor) -> Tensor:
        return value * self.body(value.mean((2, 3), keepdim=True))


class _Inverted(nn.Module):
    """An inverted residual five times as wide inside; `fused` has one full 3x3 convolution for 1x1 and depthwise."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, *, act: type[nn.Module], fused: bool = False, gated: bool = False
    ) -> None:
        super().__init__()
        width = 5 * inputs
        if fused:
            # Those of stride 2 have no padding.
            layers = [_conv(inputs, width, 3, stride, padding=2 - stride, act=act())]
        else:
            layers = [_conv(inputs, width, 1, act=act()), _conv(width, width, 3, stride, groups=width, act=act())]
        if gated:
            layers.append(_Gate(width, inputs // 4))
        self.body = nn.Sequential(*layers, _conv(width, outputs, 1, act=nn.Identity()))
        self.joined = stride == 1 and inputs == outputs

    def forward(self, value: Tensor) -> Tensor:
        return self.body(value) + value if self.joined else self.body(value)


class GpuNet(nn.Module):
    """GPUNet-0 (Wang 2022): full convolutions where the image is large, inverted residuals where it is small."""

    def __init__(self) -> None:
        super().__init__()
        layers = [_conv(3, 32, 3, 2, act=nn.SiLU()), _conv(32, 32), _conv(32, 32)]
        for inputs, outputs, stride in ((32, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)):
            layers.append(_Inverted(inputs, outputs, stride, act=nn.ReLU, fused=True))
        for inputs, outputs, stride in ((64, 256, 2), (256, 256, 1), (256, 256, 1)):
            layers.append(_Inverted(inputs, outputs, stride, act=nn.SiLU))
        for inputs, outputs, stride in ((256, 704, 2), (704, 704, 1)):
            layers.append(_Inverted(inputs, outputs, stride, act=nn.ReLU, gated=True))
        self.body = nn.Sequential(*layers, _conv(704, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(1280, 1000)

    def forward(self, image: Tensor) -> Tensor:
        mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
        return self.last(self.body((image - mean) / deviation))

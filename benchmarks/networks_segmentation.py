"""Published segmentation networks that no package ships, written anew from their papers: see benchmarks/networks.py.

Each takes and gives what the published measurement took and gave. Weights are random.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import _conv

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _normalized(image: Tensor, mean: Sequence[float] = _MEAN, std: Sequence[float] = _STD) -> Tensor:
    return (image - torch.tensor(mean).reshape(1, 3, 1, 1)) / torch.tensor(std).reshape(1, 3, 1, 1)


def _linear(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution and batch norm."""
    return _conv(inputs, outputs, size, stride, act=nn.Identity())


def _larger(value: Tensor, other: Tensor, mode: str = "bilinear", corners: bool | None = False) -> Tensor:
    """`value` at the size of `other`."""
    return F.interpolate(value, size=other.shape[2:], mode=mode, align_corners=corners)


# -- FFNet -------------------------------------------------------------------------------------------------------------


class _Basic(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(inputs, outputs, 3, stride), _linear(outputs, outputs, 3))
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _linear(inputs, outputs, 1, stride)

    def forward(self, value: Tensor) -> Tensor:
        return F.relu(self.shortcut(value) + self.body(value))


class FFNet(nn.Module):
    """FFNet (Mehta 2022) for mobile devices: 19 classes, on a slim ResNet of three or four stages."""

    def __init__(self, depths: Sequence[int], *, low: bool = False) -> None:
        super().__init__()
        # With `low` the network itself smooths and halves the image, and its head is the small one.
        narrow = len(depths) == 3
        stem = [3, 64, 64, 64] if narrow else [3, 32, 64]
        stages = [64, 128, 256] if narrow else [64, 128, 192, 320]
        self.register_buffer("kernel", torch.rand(3, 1, 5, 5) if low else None)
        self.stem = nn.Sequential(
            *(_conv(a, b, 3, s) for (a, b), s in zip(itertools.pairwise(stem), (2, 2, 1), strict=False))
        )
        self.stages = nn.ModuleList([nn.Identity()] if narrow else [])
        for i, ((a, b), depth) in enumerate(zip(itertools.pairwise([64, *stages]), depths, strict=True)):
            stride = 1 if i == 0 and low and not narrow else 2
            rest = (_Basic(b, b, 1) for _ in range(depth - 1))
            self.stages.append(nn.Sequential(_Basic(a, b, stride), *rest))
        features = [64, *stages] if narrow else stages
        widths, outputs = ([128] * 4, [128, 16, 16, 16]) if low else ([64, 128, 128, 256], [96, 96, 64, 32])
        self.adapt = nn.ModuleList(_conv(a, b, 1) for a, b in zip(features, widths, strict=True))
        self.smooth = nn.ModuleList(_conv(a, b) for a, b in zip(widths, outputs, strict=True))
        self.up = nn.ModuleList(_conv(b, a, 1) for a, b in itertools.pairwise(widths))
        last = nn.Conv2d(128, 19, 1) if low else nn.Conv2d(256, 19, 3, 1, 1)
        self.head = nn.Sequential(_conv(sum(outputs), 128 if low else 256), last)

    def forward(self, image: Tensor) -> Tensor:
        value = _normalized(image)
        if self.kernel is not None:
            value = F.conv2d(F.pad(value, (0, 0, 1, 1), mode="reflect"), self.kernel, stride=2, groups=3)
        value = self.stem(value)
        kept: list[Tensor] = []
        for stage, adapt in zip(self.stages, self.adapt, strict=True):
            value = stage(value)
            kept.append(adapt(value))
        value = kept[3]
        levels = [self.smooth[3](value)]
        for i in (2, 1, 0):
            value = _larger(self.up[i](value), kept[i], "nearest", None) + kept[i]
            levels.append(self.smooth[i](value))
        value = levels.pop()
        first = value
        for level in reversed(levels):
            value = torch.cat([value, _larger(level, first, "nearest", None)], 1)
        return self.head(value)


# -- BiSeNet -----------------------------------------------------------------------------------------------------------


class _Refine(nn.Module):
    """Attention over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        return value * self.conv(F.adaptive_avg_pool2d(value, 1)).sigmoid()


class BiSeNet(nn.Module):
    """BiSeNet (Yu 2018) on ResNet-18, 12 classes: a shallow path at an eighth of the size beside a deep one."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision import models

        net = models.resnet18(weights=None)
        self.spatial = nn.Sequential(_conv(3, 64, 3, 2), _conv(64, 128, 3, 2), _conv(128, 256, 3, 2))
        stem = [net.conv1, net.bn1, net.relu, net.maxpool]
        self.context = nn.Sequential(*stem, net.layer1, net.layer2, net.layer3)
        self.deep = net.layer4
        self.refine = nn.ModuleList([_Refine(256), _Refine(512)])
        self.join = _conv(1024, 12)
        self.gate = nn.Sequential(nn.Conv2d(12, 12, 1), nn.ReLU(), nn.Conv2d(12, 12, 1), nn.Sigmoid())
        self.last = nn.Conv2d(12, 12, 1)

    def forward(self, image: Tensor) -> Tensor:
        image = _normalized(image)
        spatial = self.spatial(image)
        middle = self.context(image)
        deep = self.deep(middle)
        tail = deep.mean(3, keepdim=True).mean(2, keepdim=True)
        middle, deep = self.refine[0](middle), self.refine[1](deep) * tail
        context = torch.cat([_larger(middle, spatial), _larger(deep, spatial)], 1)
        value = self.join(torch.cat([spatial, context], 1))
        value = value * self.gate(F.adaptive_avg_pool2d(value, 1)) + value
        return self.last(F.interpolate(value, scale_factor=8, mode="bilinear", align_corners=False))


# -- DeepLab on Xception -----------------------------------------------------------------------------------------------


def _separable(inputs: int, outputs: int, stride: int = 1, dilation: int = 1, *, first: bool = False) -> nn.Sequential:
    """Depthwise and pointwise convolution; one ReLU before both (`first`), or one after each."""
    act = nn.Identity if first else nn.ReLU
    layers = [
        _conv(inputs, inputs, 3, stride, groups=inputs, dilation=dilation, act=act()),
        _conv(inputs, outputs, 1, act=act()),
    ]
    return nn.Sequential(nn.ReLU(), *layers) if first else nn.Sequential(*layers)


class _XceptionBlock(nn.Module):
    """Three separable convolutions; gives the second's result too."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(_separable(inputs, middle, first=True), _separable(middle, outputs, first=True))
        self.last = _separable(outputs, outputs, stride, first=True)
        self.shortcut = nn.Identity() if inputs == outputs else _linear(inputs, outputs, 1, stride)

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        low = self.body(value)
        return self.last(low) + self.shortcut(value), low


class DeepLabXception(nn.Module):
    """DeepLab v3+ (Chen 2018) on Xception-65, output stride 16, 21 classes; gives the class of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 3, 2), _conv(32, 64))
        entry = [(64, 128, 128, 2), (128, 256, 256, 2), (256, 728, 728, 2)]
        blocks = [*entry, *[(728, 728, 728, 1)] * 16, (728, 728, 1024, 1)]
        self.blocks = nn.ModuleList(_XceptionBlock(*block) for block in blocks)
        tail = [(1024, 1536), (1536, 1536), (1536, 2048)]
        self.tail = nn.Sequential(*(_separable(a, b, dilation=2) for a, b in tail))
        dilated = (_separable(2048, 256, dilation=d) for d in (6, 12, 18))
        self.branches = nn.ModuleList([_conv(2048, 256, 1), *dilated])
        self.pooled = _conv(2048, 256, 1)
        self.join = _conv(1280, 256, 1)
        self.shortcut = _conv(256, 48, 1)
        self.last = nn.Sequential(_separable(304, 256), _separable(256, 256), nn.Conv2d(256, 21, 1))

    def forward(self, image: Tensor) -> Tensor:
        value = self.stem(_normalized(image, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))
        kept: list[Tensor] = []
        for block in self.blocks:
            value, low = block(value)
            kept.append(low)
        value, low = self.tail(value), kept[1]
        pooled = _larger(self.pooled(F.adaptive_avg_pool2d(value, 1)), value, corners=True)
        value = self.join(torch.cat([pooled, *(branch(value) for branch in self.branches)], 1))
        value = torch.cat([_larger(value, low, corners=True), self.shortcut(low)], 1)
        return _larger(self.last(value), image, corners=True).argmax(1).to(torch.uint8)


# -- BGNet -------------------------------------------------------------------------------------------------------------


class _Res2Block(nn.Module):
    """Bottleneck whose 3x3 convolution is three narrow ones, each fed by the one before except in a first block."""

    def __init__(self, inputs: int, width: int, stride: int, *, first: bool) -> None:
        super().__init__()
        self.part = width * 26 // 64
        self.one, self.last = _conv(inputs, 4 * self.part, 1), _linear(4 * self.part, 4 * width)
        self.convs = nn.ModuleList(_conv(self.part, self.part, 3, stride) for _ in range(3))
        self.first = first
        self.pool = nn.AvgPool2d(3, stride, 1) if first else nn.Identity()
        shrink = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.shortcut = nn.Sequential(shrink, _linear(inputs, 4 * width)) if first else nn.Identity()

    def forward(self, value: Tensor) -> Tensor:
        parts = self.one(value).split(self.part, 1)
        out = last = self.convs[0](parts[0])
        for conv, part in zip(self.convs[1:], parts[1:3], strict=True):
            last = conv(part if self.first else last + part)
            out = torch.cat([out, last], 1)
        out = torch.cat([out, self.pool(parts[3])], 1)
        return F.relu(self.last(out) + self.shortcut(value))


class _EdgeGuided(nn.Module):
    """Features weighted by an edge map, then by a convolution along their channels."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.conv = _conv(width, width)
        self.along = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, value: Tensor, edge: Tensor) -> Tensor:
        value = self.conv(value * _larger(edge, value) + value)
        weight = F.adaptive_avg_pool2d(value, 1).squeeze(-1).transpose(-1, -2)
        return value * self.along(weight).transpose(-1, -2).unsqueeze(-1).sigmoid()


class _Aggregate(nn.Module):
    """Joins two levels through four dilated convolutions, each on a quarter of the channels."""

    def __init__(self, upper: int, width: int) -> None:
        super().__init__()
        self.first = _conv(upper + width, width, 1)
        self.convs = nn.ModuleList(_conv(width // 4, width // 4, dilation=d) for d in (1, 2, 3, 4))
        self.join, self.last = _conv(width, width, 1), _conv(width, width)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        if low.shape[2:] != high.shape[2:]:
            high = _larger(high, low)
        value = self.first(torch.cat([low, high], 1))
        a, b, c, d = value.chunk(4, 1)
        w = self.convs[0](a + b)
        x = self.convs[1](b + w + c)
        y = self.convs[2](c + x + d)
        z = self.convs[3](d + y)
        return self.last(value + self.join(torch.cat([w, x, y, z], 1)))


class BgNet(nn.Module):
    """BGNet (Sun 2022) on Res2Net-50 v1b: a camouflaged object's mask, guided by its edge."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 3, 2), _conv(32, 32), _conv(32, 64), nn.MaxPool2d(3, 2, 1))
        stages, inputs = [], 64
        for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            blocks = [_Res2Block(inputs, width, stride, first=True)]
            inputs = 4 * width
            blocks += [_Res2Block(inputs, width, 1, first=False) for _ in range(depth - 1)]
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.ends = nn.ModuleList([_conv(256, 64, 1), _conv(2048, 256, 1)])
        self.edge = nn.Sequential(_conv(320, 256), _conv(256, 256), nn.Conv2d(256, 1, 1))
        sizes = [(256, 5), (512, 5), (1024, 5), (2048, 7)]
        self.guided = nn.ModuleList(_EdgeGuided(*size) for size in sizes)
        reduced = [(256, 64), (512, 128), (1024, 256), (2048, 256)]
        self.reduce = nn.ModuleList(_conv(a, b, 1) for a, b in reduced)
        self.join = nn.ModuleList([_Aggregate(128, 64), _Aggregate(256, 128), _Aggregate(256, 256)])
        self.last = nn.Conv2d(64, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        value = self.stem(_normalized(image))
        kept: list[Tensor] = []
        for stage in self.stages:
            value = stage(value)
            kept.append(value)
        low, high = self.ends[0](kept[0]), self.ends[1](kept[3])
        edge = self.edge(torch.cat([_larger(high, low), low], 1)).sigmoid()
        levels = [reduce(guided(k, edge)) for k, guided, reduce in zip(kept, self.guided, self.reduce, strict=True)]
        value = levels[3]
        for i in (2, 1, 0):
            value = self.join[i](levels[i], value)
        return F.interpolate(self.last(value), scale_factor=4, mode="bilinear", align_corners=False)

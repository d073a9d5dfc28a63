"""Published networks for faces and people on phones, written anew for benchmarks/architectures.py. Needs torch.

Each takes and gives what the published measurement took and gave. Weights are random.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.networks import _conv

# -- detectors on a MobileNet v3 with full 3x3 convolutions ------------------------------------------------------------


class _Excite(nn.Module):
    """Squeeze and excitation (Hu 2018) with batch norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(_conv(width, width // 4, 1), _conv(width // 4, width, 1, act=nn.Sigmoid()))

    def forward(self, value: Tensor) -> Tensor:
        return value * self.gate(F.adaptive_avg_pool2d(value, 1))


class _Full(nn.Module):
    """Expand by 1x1, then one or two 3x3 convolutions over all channels; the last one has the stride."""

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int, convs: int, *, excite: bool) -> None:
        super().__init__()
        layers = [_conv(inputs, middle, 1)]
        if convs == 2:
            layers += [_conv(middle, outputs), _conv(outputs, outputs, 3, stride)]
        else:
            layers.append(_conv(middle, outputs, 3, stride))
        self.body = nn.Sequential(*layers, _Excite(outputs)) if excite else nn.Sequential(*layers)
        self.joined = stride == 1
        self.side = nn.Identity()
        if self.joined and inputs != outputs:
            self.side = _conv(inputs, outputs, 1, act=nn.Identity())

    def forward(self, value: Tensor) -> Tensor:
        return self.body(value) + self.side(value) if self.joined else self.body(value)


class _Pyramid(nn.Module):
    """A backbone of `_Full` blocks, added up from the smallest features to the largest, and a context block."""

    def __init__(self, channels: int, blocks: list[tuple[int, int, int, int, bool]], keep: list[int], width: int):
        super().__init__()
        self.stem = _conv(channels, 16, 3, 2)
        widths = [16, *(outputs for _, outputs, *_ in blocks)]
        self.blocks = nn.ModuleList(
            _Full(inputs, middle, outputs, stride, convs, excite=excite)
            for inputs, (middle, outputs, stride, convs, excite) in zip(widths[:-1], blocks, strict=True)
        )
        self.keep = keep
        self.last = _conv(widths[-1], width, 1)
        self.side = nn.ModuleList(_conv(widths[i + 1], width, 1) for i in keep)
        self.up = nn.ModuleList(_conv(width, width) for _ in keep)
        self.near = _conv(width, width // 2)
        self.context = _conv(width, width // 4)
        self.short = _conv(width // 4, width // 4)
        self.long = nn.Sequential(_conv(width // 4, width // 4), _conv(width // 4, width // 4))

    def forward(self, image: Tensor) -> Tensor:
        value = self.stem(image)
        kept = []
        for i, block in enumerate(self.blocks):
            value = block(value)
            if i in self.keep:
                kept.append(value)
        value = self.last(value)
        for up, side, other in zip(self.up, reversed(self.side), reversed(kept), strict=True):
            value = up(F.interpolate(value, scale_factor=2, mode="nearest")) + side(other)
        near, context = self.near(value), self.context(value)
        return torch.cat([near, torch.cat([self.short(context), self.long(context)], 1)], 1)


# Middle and outer width, stride, number of 3x3 convolutions, and whether there is squeeze and excitation.
_FACE = [
    (16, 16, 2, 1, False),
    (64, 32, 2, 1, False),
    (96, 32, 1, 1, False),
    (96, 32, 2, 2, True),
    (224, 32, 1, 2, True),
    (224, 32, 1, 2, True),
    (128, 64, 1, 2, True),
    (160, 64, 1, 2, True),
    (256, 96, 2, 2, True),
]
_FOOT = [
    (16, 16, 1, 1, False),
    (64, 16, 2, 1, False),
    (64, 16, 1, 1, False),
    (96, 32, 2, 2, True),
    (96, 32, 1, 2, True),
    (128, 32, 1, 2, True),
    (128, 64, 2, 1, False),
    (128, 64, 1, 1, False),
    (160, 64, 1, 1, False),
    (160, 64, 1, 1, False),
    (256, 64, 1, 1, True),
    (320, 64, 1, 1, True),
    (320, 64, 1, 2, True),
    (320, 96, 2, 2, True),
    (480, 96, 1, 2, True),
]


class FaceDetLite(nn.Module):
    """Qualcomm's light face detector (no paper; published 2024): scores, boxes and five landmarks at stride 8."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _Pyramid(1, _FACE, [2, 7], 32)
        self.heads = nn.ModuleList(nn.Conv2d(32, n, 1) for n in (1, 4, 10))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        value = self.body((image - 0.442) / 0.280)
        return tuple(head(value) for head in self.heads)


class FootTrack(nn.Module):
    """Qualcomm's FootTrackNet (no paper; published 2024): three kinds of box and 17 landmarks at stride 4."""

    def __init__(self) -> None:
        super().__init__()
        self.colors = _conv(3, 3, 1, act=nn.Identity())
        self.body = _Pyramid(3, _FOOT, [2, 5, 12], 64)
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(64, 64), nn.Conv2d(64, n, 1)) for n in (1, 1, 1, 4, 4, 4, 34, 17)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        value = self.body(self.colors(image * 255))
        found = [head(value) for head in self.heads]
        scores = torch.cat([score.sigmoid() for score in found[:3]], 1)
        return scores, torch.cat(found[3:6], 1), found[6], found[7].sigmoid()


# -- grouped convolutions ----------------------------------------------------------------------------------------------


def _grouped(inputs: int, middle: int, outputs: int, stride: int = 1, *, act: bool = True) -> nn.Sequential:
    """A 3x3 convolution of 32 channels a group and a 1x1 one with batch norm and a PReLU of one slope."""
    spatial = nn.Conv2d(inputs, middle, 3, stride, 1, groups=inputs // 32, bias=False)
    return nn.Sequential(spatial, _conv(middle, outputs, 1, act=nn.PReLU() if act else nn.Identity()))


class _Sum(nn.Module):
    """The sum of its branches and a PReLU; without a second branch the input is added."""

    def __init__(self, body: nn.Module, side: nn.Module | None = None) -> None:
        super().__init__()
        self.body, self.side, self.act = body, side or nn.Identity(), nn.PReLU()

    def forward(self, value: Tensor) -> Tensor:
        return self.act(self.body(value) + self.side(value))


class FaceAttrib(nn.Module):
    """Qualcomm's FaceAttribNet (no paper; published 2024): five yes-or-no attributes of a face."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            _conv(3, 64, act=nn.PReLU()),
            _Sum(
                nn.Sequential(_grouped(64, 64, 64, 2), _grouped(64, 64, 64, act=False)),
                _grouped(64, 64, 64, 2, act=False),
            ),
        )
        stages = []
        for width, count in ((128, 1), (256, 5), (512, 2)):
            half = width // 2
            # The second convolution has as many groups as the first: 64 channels each.
            inner = nn.Conv2d(width, 2 * width, 3, 1, 1, groups=half // 32, bias=False)
            last = _conv(2 * width, width, 1, act=nn.Identity())
            down = nn.Sequential(_grouped(half, 2 * width, width, 2), inner, last)
            plain = [
                _Sum(nn.Sequential(_grouped(width, 2 * width, width), _grouped(width, 2 * width, width, act=False)))
                for _ in range(count)
            ]
            stages.append(nn.Sequential(_Sum(down, _grouped(half, width, width, 2)), *plain))
        self.stages = nn.ModuleList(stages)
        self.shallow = nn.ModuleList(_grouped(256, 128, 128, 2) for _ in range(5))
        self.deep = nn.ModuleList(nn.Sequential(_grouped(640, 320, 128, 2), nn.AvgPool2d(4, 1)) for _ in range(5))
        self.heads = nn.ModuleList(nn.Linear(128, 2) for _ in range(5))

    def forward(self, image: Tensor) -> Tensor:
        value = self.first((image - 0.5) / 0.50196078)
        middle = self.stages[1](self.stages[0](value))
        last = self.stages[2](middle)
        found = []
        for shallow, deep, head in zip(self.shallow, self.deep, self.heads, strict=True):
            found.append(head(deep(torch.cat([shallow(middle), last], 1)).flatten(1)))
        return torch.stack(found, 1).softmax(2)[:, :, 1]


# -- the Blaze family --------------------------------------------------------------------------------------------------


class _DoubleBlaze(nn.Module):
    """The double block of BlazeFace (Bazarevsky 2019): two depthwise 5x5 and pointwise pairs and a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = max(inputs, outputs) // 2
        self.body = nn.Sequential(
            _conv(inputs, inputs, 5, groups=inputs, act=nn.Identity()),
            _conv(inputs, middle, 1),
            _conv(middle, middle, 5, groups=middle, act=nn.Identity()),
            _conv(middle, outputs, 1, act=nn.Identity()),
        )
        self.side = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, value: Tensor) -> Tensor:
        return F.relu(self.body(value) + self.side(value))


class GearGuard(nn.Module):
    """Qualcomm's GearGuardNet (no paper; published 2024): YOLO v5's frame on blocks of BlazeFace, two classes."""

    def __init__(self) -> None:
        super().__init__()
        widths, counts = [32, 64, 128, 256, 512], (1, 1, 3, 1)
        self.stem = _conv(3, 32, 6, 2, padding=2)
        self.stages = nn.ModuleList(
            nn.Sequential(_conv(a, b, 3, 2), *(_DoubleBlaze(b, b) for _ in range(n)))
            for (a, b), n in zip(itertools.pairwise(widths), counts, strict=True)
        )
        self.last = _conv(512, 512)
        self.lateral = nn.ModuleList([_conv(512, 256, 1), _conv(256, 128, 1)])
        self.top = nn.ModuleList([_DoubleBlaze(512, 256), _DoubleBlaze(256, 128)])
        self.down = nn.ModuleList([_conv(128, 128, 3, 2), _conv(256, 256, 3, 2)])
        self.bottom = nn.ModuleList([_DoubleBlaze(256, 256), _DoubleBlaze(512, 512)])
        self.heads = nn.ModuleList(nn.Conv2d(w, 21, 1) for w in (128, 256, 512))
        sizes = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]], [[116, 90], [156, 198], [373, 326]]]
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.float32))

    def _decode(self, raw: Tensor, sizes: Tensor, stride: int) -> Tensor:
        rows, columns = raw.shape[2:]
        cells = raw.permute(0, 2, 3, 1).reshape(1, rows, columns, 3, 7)
        score = cells[..., 4].sigmoid().reshape(1, -1)
        classes = cells[..., 5:].sigmoid().reshape(1, -1, 2)
        every = cells.reshape(1, -1, 7)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        grid = [axis.reshape(1, -1, 1).expand(1, -1, 3).reshape(1, -1).float() for axis in (x, y)]
        anchors = sizes.repeat(rows * columns, 1).unsqueeze(0)
        boxes = [(every[..., i].sigmoid() * 2 - 0.5 + grid[i]) * stride for i in (0, 1)]
        boxes += [every[..., 2 + i].sigmoid() ** 2 * 4 * anchors[..., i] for i in (0, 1)]
        return torch.cat([torch.stack([*boxes, score], 2), classes], 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = self.stem(image)
        kept = []
        for stage in self.stages:
            value = stage(value)
            kept.append(value)
        five = self.lateral[0](self.last(value))
        four = self.top[0](torch.cat([F.interpolate(five, scale_factor=2, mode="nearest"), kept[2]], 1))
        four = self.lateral[1](four)
        three = self.top[1](torch.cat([F.interpolate(four, scale_factor=2, mode="nearest"), kept[1]], 1))
        lower = self.bottom[0](torch.cat([self.down[0](three), four], 1))
        levels = [three, lower, self.bottom[1](torch.cat([self.down[1](lower), five], 1))]
        raw = [head(level) for head, level in zip(self.heads, levels, strict=True)]
        found = torch.cat([self._decode(r, self.sizes[i], 8 << i) for i, r in enumerate(raw)], 1)
        boxes, score, classes = found[..., :4], found[..., 4:5], found[..., 5:]
        centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
        scores, best = (classes * score).max(-1)
        return torch.cat([centre - half, centre + half], -1), scores, best.int().to(torch.uint8)


def _pad(value: Tensor, *sizes: int) -> Tensor:
    """Zeros around; the zero is spelled out, since onnxruntime joins a Pad to a Conv only if the value is given."""
    return F.pad(value, sizes, "constant", 0)


class _Blaze(nn.Module):
    """The single block of BlazeFace (Bazarevsky 2019); halving pads as TensorFlow does.

    A wider output either projects the shortcut (`project`) or fills it up with zeros.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int = 1,
        *,
        size: int = 3,
        prelu: bool = False,
        project: bool = False,
        joined: bool = True,
    ) -> None:
        super().__init__()
        # With stride 2 the depthwise convolution has an uneven pad of its own: nothing before for 3x3, one for 5x5.
        before = (size - 3) // 2
        self.pad = (before, 2, before, 2) if stride == 2 else None
        padding = size // 2 if stride == 1 else 0
        depthwise = nn.Conv2d(inputs, inputs, size, stride, padding, groups=inputs)
        self.body = nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1))
        self.side = nn.Conv2d(inputs, outputs, 1) if project else None
        self.extra = outputs - inputs
        self.act = nn.PReLU(outputs) if prelu else nn.ReLU(inplace=True)
        self.joined = joined

    def forward(self, value: Tensor) -> Tensor:
        side = value
        if self.pad is not None:
            value = _pad(value, *self.pad)
        value = self.body(value)
        if not self.joined:
            return self.act(value)
        if self.pad is not None:
            side = F.max_pool2d(side, 2)
        if self.side is not None:
            side = self.side(side)
        elif self.extra:
            side = _pad(side, 0, 0, 0, 0, 0, self.extra)
        return self.act(value + side)


def _chain(inputs: int, outputs: int, count: int, *, stride: int = 2, **more: Any) -> nn.Sequential:
    """Blaze blocks: one that changes the width, with a stride, and `count` that keep it."""
    project = bool(more.pop("project", False))
    first = _Blaze(inputs, outputs, stride, project=project, **more)
    return nn.Sequential(first, *(_Blaze(outputs, outputs, **more) for _ in range(count)))


class _Anchored(nn.Module):
    """Boxes and scores of two anchors a cell at the larger features and six at the smaller."""

    def __init__(self, large: int, small: int, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers
        self.boxes = nn.ModuleList([nn.Conv2d(large, 2 * numbers, 1), nn.Conv2d(small, 6 * numbers, 1)])
        self.scores = nn.ModuleList([nn.Conv2d(large, 2, 1), nn.Conv2d(small, 6, 1)])

    def forward(self, *levels: Tensor) -> tuple[Tensor, ...]:
        boxes = [head(level) for head, level in zip(self.boxes, levels, strict=True)]
        scores = [head(level) for head, level in zip(self.scores, levels, strict=True)]
        return (
            *(found.permute(0, 2, 3, 1).reshape(1, -1, self.numbers) for found in boxes),
            *(found.permute(0, 2, 3, 1).reshape(1, -1, 1) for found in scores),
        )


class BlazeFace(nn.Module):
    """BlazeFace (Bazarevsky 2019), the model for a phone's rear camera: 896 anchors, 16 numbers each."""

    def __init__(self) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 24, 5, 2), nn.ReLU(inplace=True), _chain(24, 24, 6, stride=1)]
        self.body = nn.Sequential(*first, _chain(24, 24, 7), _chain(24, 48, 7), _chain(48, 96, 7))
        self.small = _Blaze(96, 96, 2, joined=False)
        self.heads = _Anchored(96, 96, 16)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        value = self.body(_pad(image, 2, 2, 2, 2))
        found: tuple[Tensor, ...] = self.heads(value, self.small(value))
        return found


class FaceMesh(nn.Module):
    """Face mesh (Kartynnik 2019): 468 landmarks and whether there is a face."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 16, 3, 2), nn.PReLU(16), _chain(16, 16, 1, stride=1, prelu=True)]
        layers += [_chain(a, b, 2, prelu=True) for a, b in ((16, 32), (32, 64), (64, 128), (128, 128))]
        self.body = nn.Sequential(*layers)

        def head(count: int, outputs: int) -> nn.Sequential:
            narrow = [nn.Conv2d(128, 32, 1), nn.PReLU(32), _Blaze(32, 32, prelu=True)]
            return nn.Sequential(_chain(128, 128, count, prelu=True), *narrow, nn.Conv2d(32, outputs, 3))

        self.points, self.face = head(2, 1404), head(0, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        value = self.body(_pad(image, 0, 1, 0, 1))
        points = self.points(value).view(-1, 468, 3) / 192
        return self.face(value).sigmoid().view(-1), points


class BlazePose(nn.Module):
    """The detector of BlazePose (Bazarevsky 2020): 896 anchors, 12 numbers each."""

    def __init__(self) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 48, 5, 1, 2), nn.ReLU(inplace=True), _chain(48, 48, 2, stride=1, size=5)]
        wider = [_chain(a, b, n, size=5, project=True) for a, b, n in ((48, 64, 3), (64, 96, 6), (96, 128, 7))]
        self.body = nn.Sequential(*first, *wider)
        self.small = _chain(128, 256, 6, size=5, project=True)
        self.heads = _Anchored(128, 256, 12)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        value = self.body(_pad(image, 1, 2, 2, 2))
        found: tuple[Tensor, ...] = self.heads(value, self.small(value))
        return found


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    depthwise = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))


class BlazePoseLandmarks(nn.Module):
    """BlazePose (Bazarevsky 2020): 25 landmarks of a person and whether there is one; no mask is given."""

    def __init__(self) -> None:
        super().__init__()
        first = [nn.Conv2d(3, 24, 3, 2), nn.ReLU(inplace=True), _chain(24, 24, 1, stride=1)]
        wider = ((48, 96, 4), (96, 192, 5), (192, 288, 6))
        self.first = nn.Sequential(*first, _chain(24, 48, 3))
        self.down = nn.ModuleList(_chain(a, b, n) for a, b, n in wider)
        self.up = nn.ModuleList(_separable(n, 48) for n in (288, 192, 96, 48))
        self.again = nn.ModuleList(_chain(a, b, n) for a, b, n in wider)
        self.side = nn.ModuleList(_separable(n, n) for n in (96, 192, 288))
        self.last = nn.Sequential(_chain(288, 288, 7), _chain(288, 288, 6), _Blaze(288, 288))
        self.person, self.points = nn.Conv2d(288, 1, 2), nn.Conv2d(288, 124, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        kept = [self.first(_pad(image, 0, 1, 0, 1))]
        for down in self.down:
            kept.append(down(kept[-1]))
        value = self.up[0](kept[-1])
        for up, other in zip(self.up[1:], kept[-2::-1], strict=True):
            value = up(other) + F.interpolate(value, scale_factor=2, mode="bilinear")
        for again, side, other in zip(self.again, self.side, kept[1:], strict=True):
            value = again(value) + side(other)
        value = self.last(value)
        person = self.person(value).view(-1).sigmoid()
        return person, (self.points(value).view(1, 31, 4) / 256)[:, :25]

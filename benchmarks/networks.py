"""Published networks that no package ships, written anew from their papers for benchmarks/architectures.py. Needs torch.

Each takes and gives what the published measurement took and gave. Weights are random.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, *, act: nn.Module | None = None, **more: Any
) -> Any:
    """Convolution, batch norm and activation; "same" padding."""
    padding = more.pop("padding", (size - 1) // 2 * more.get("dilation", 1))
    layers = [nn.Conv2d(inputs, outputs, size, stride, padding, bias=False, **more), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, act or nn.ReLU(inplace=True))


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_conv(inputs, outputs), _conv(outputs, outputs))


class UNet(nn.Module):
    """U-Net (Ronneberger 2015) with padding, batch norm and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 128, 256, 512, 1024]
        self.first = _double(3, 64)
        self.down = nn.ModuleList(_double(a, b) for a, b in itertools.pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, b // 2, 2, 2) for b in widths[:0:-1])
        self.join = nn.ModuleList(_double(b, b // 2) for b in widths[:0:-1])
        self.last = nn.Conv2d(64, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        kept = [self.first(image)]
        for down in self.down:
            kept.append(down(F.max_pool2d(kept[-1], 2)))
        value = kept.pop()
        for up, join in zip(self.up, self.join, strict=True):
            value = join(torch.cat([kept.pop(), up(value)], 1))
        return self.last(value)


class QuickSRNet(nn.Module):
    """QuickSRNet (Berger 2023), 4x: plain convolutions with clipped outputs."""

    def __init__(self, width: int, layers: int, *, joined: bool = False) -> None:
        super().__init__()
        convs = [nn.Conv2d(3, width, 3, 1, 1), nn.Hardtanh(0, 1)]
        for _ in range(layers):
            convs += [nn.Conv2d(width, width, 3, 1, 1), nn.Hardtanh(0, 1)]
        self.body = nn.Sequential(*convs)
        self.last = nn.Conv2d(width, 48, 3, 1, 1)
        self.joined = joined

    def forward(self, image: Tensor) -> Tensor:
        value = self.last(self.body(image))
        if self.joined:
            value = value + image.repeat_interleave(16, 1)
        return F.pixel_shuffle(value, 4).clamp(0, 1)


class Sesr(nn.Module):
    """SESR-M5 (Bhardwaj 2022), 4x, in the form that was trained: each convolution widened to 256 channels."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, size: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(inputs, 256, size, 1, size // 2), nn.Conv2d(256, outputs, 1))

        self.first = nn.Sequential(block(3, 16, 5), nn.PReLU(16))
        self.blocks = nn.ModuleList(block(16, 16, 3) for _ in range(5))
        self.acts = nn.ModuleList(nn.PReLU(16) for _ in range(5))
        self.last = block(16, 48, 5)

    def forward(self, image: Tensor) -> Tensor:
        first = value = self.first(image)
        for block, act in zip(self.blocks, self.acts, strict=True):
            value = act(block(value) + value)
        return F.pixel_shuffle(self.last(value + first) + image.repeat_interleave(16, 1), 4)


class Xlsr(nn.Module):
    """XLSR (Ayazoglu 2021), 4x: three blocks of grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.side = nn.Conv2d(3, 16, 3, 1, 1)
        self.first = nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU())
        blocks = []
        for _ in range(3):
            blocks += [nn.Conv2d(32, 32, 3, 1, 1, groups=4), nn.ReLU(), nn.Conv2d(32, 32, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.join = nn.Sequential(nn.Conv2d(48, 32, 1), nn.ReLU())
        self.last = nn.Conv2d(32, 48, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        value = torch.cat([self.blocks(self.first(image)), self.side(image)], 1)
        return F.pixel_shuffle(self.last(self.join(value)), 4).clamp(0, 1)


class CompactVgg(nn.Module):
    """The compact generator of Real-ESRGAN (Wang 2021), 4x: 32 convolutions of 64 channels with PReLU."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3, 64, 3, 1, 1), nn.PReLU(64)]
        for _ in range(32):
            layers += [nn.Conv2d(64, 64, 3, 1, 1), nn.PReLU(64)]
        self.body = nn.Sequential(*layers, nn.Conv2d(64, 48, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return F.pixel_shuffle(self.body(image), 4) + F.interpolate(image, scale_factor=4, mode="nearest")


class _Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(64 + 32 * i, 32 if i < 4 else 64, 3, 1, 1) for i in range(5))

    def forward(self, value: Tensor) -> Tensor:
        kept = [value]
        for conv in self.convs[:-1]:
            kept.append(F.leaky_relu(conv(torch.cat(kept, 1)), 0.2))
        return self.convs[-1](torch.cat(kept, 1)) * 0.2 + value


class Rrdb(nn.Module):
    """ESRGAN's generator (Wang 2018), 4x: 23 blocks of three dense blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, 1, 1)
        self.blocks = nn.ModuleList(nn.Sequential(_Dense(), _Dense(), _Dense()) for _ in range(23))
        self.tail = nn.ModuleList(nn.Conv2d(64, 64, 3, 1, 1) for _ in range(4))
        self.last = nn.Conv2d(64, 3, 3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        first = value = self.first(image)
        for block in self.blocks:
            value = block(value) * 0.2 + value
        value = first + self.tail[0](value)
        for conv in self.tail[1:3]:
            value = F.leaky_relu(conv(F.interpolate(value, scale_factor=2, mode="nearest")), 0.2)
        return self.last(F.leaky_relu(self.tail[3](value), 0.2))


# Outputs and stride of each depthwise separable layer of MobileNet v1.
_SEPARABLE = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]


def _mobilenet(channels: int, *, dilate: bool, act: type[nn.Module]) -> nn.Sequential:
    """MobileNet v1 (Howard 2017); with `dilate` the last stage keeps its resolution and dilates its kernels."""
    layers: list[nn.Module] = [_conv(channels, 32, 3, 2, act=act())]
    width, dilation = 32, 1
    for outputs, stride in _SEPARABLE:
        if dilate and outputs == 1024:
            stride = 1
        layers += [
            _conv(width, width, 3, stride, groups=width, dilation=dilation, act=act()),
            _conv(width, outputs, 1, act=act()),
        ]
        dilation = 2 if dilate and outputs == 1024 else 1
        width = outputs
    return nn.Sequential(*layers)


class PoseNet(nn.Module):
    """PoseNet (Papandreou 2018) on MobileNet v1, output stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _mobilenet(3, dilate=True, act=nn.ReLU6)
        self.heads = nn.ModuleList(nn.Conv2d(1024, n, 1) for n in (17, 34, 32, 32))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        value = self.body(image * 2 - 1)
        heat, *rest = (head(value) for head in self.heads)
        heat = heat.sigmoid()
        return (heat, *rest, F.max_pool2d(heat, 3, 1, 1))


class YamNet(nn.Module):
    """YAMNet (Plakal 2020): MobileNet v1 on a log mel spectrogram, 521 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _mobilenet(1, dilate=False, act=nn.ReLU)
        self.last = nn.Linear(1024, 521)

    def forward(self, audio: Tensor) -> Tensor:
        return self.last(self.body(audio).mean((2, 3)))


class Craft(nn.Module):
    """CRAFT (Baek 2019): a text detector on VGG-16 with batch norm; scores at half the input's size."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision import models

        layers = list(models.vgg16_bn(weights=None).features)
        # Up to relu2_2, relu3_2, relu4_2, relu5_2; then one wide dilated layer.
        bounds = [0, 12, 19, 29, 39]
        self.stages = nn.ModuleList(nn.Sequential(*layers[a:b]) for a, b in itertools.pairwise(bounds))
        wide = [nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.Conv2d(1024, 1024, 1)]
        self.wide = nn.Sequential(*wide)
        widths = [(1536, 512, 256), (768, 256, 128), (384, 128, 64), (192, 64, 32)]
        self.up = nn.ModuleList(nn.Sequential(_conv(a, b, 1), _conv(b, c)) for a, b, c in widths)
        head: list[nn.Module] = []
        for inputs, outputs, size in ((32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1)):
            head += [nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.ReLU()]
        self.head = nn.Sequential(*head, nn.Conv2d(16, 2, 1))

    def forward(self, image: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for stage in self.stages:
            kept.append(stage(kept[-1] if kept else image))
        value = self.wide(kept[-1])
        for i, up in enumerate(self.up):
            other = kept[-1 - i]
            if i:
                value = F.interpolate(value, size=other.shape[2:], mode="bilinear", align_corners=False)
            value = up(torch.cat([value, other], 1))
        return self.head(value).permute(0, 2, 3, 1)


class DeepLabMobile(nn.Module):
    """DeepLab v3+ (Chen 2018) on MobileNet v2, output stride 16, 21 classes; gives the class of each pixel."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision import models

        features = models.mobilenet_v2(weights=None).features
        self.low, self.high = features[:4], features[4:18]
        for block in self.high[10:]:
            for module in block.modules():
                if isinstance(module, nn.Conv2d) and module.groups > 1:
                    module.dilation, module.stride, module.padding = (2, 2), (1, 1), (2, 2)
        self.branches = nn.ModuleList([_conv(320, 256, 1), *(_conv(320, 256, 3, dilation=d) for d in (6, 12, 18))])
        self.pooled = _conv(320, 256, 1)
        self.join = _conv(1280, 256, 1)
        self.shortcut = _conv(24, 48, 1)
        self.last = nn.Sequential(_conv(304, 256), _conv(256, 256), nn.Conv2d(256, 21, 1))

    def forward(self, image: Tensor) -> Tensor:
        low = self.low(image)
        high = self.high(low)
        pooled = F.interpolate(
            self.pooled(high.mean((2, 3), keepdim=True)), size=high.shape[2:], mode="bilinear", align_corners=True
        )
        value = self.join(torch.cat([*(branch(high) for branch in self.branches), pooled], 1))
        value = F.interpolate(value, size=low.shape[2:], mode="bilinear", align_corners=True)
        value = self.last(torch.cat([value, self.shortcut(low)], 1))
        value = F.interpolate(value, size=image.shape[2:], mode="bilinear", align_corners=True)
        return value.argmax(1).to(torch.uint8)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in range(2))

    def forward(self, value: Tensor) -> Tensor:
        return self.convs[1](F.relu(self.convs[0](F.relu(value)))) + value


class Midas(nn.Module):
    """MiDaS v2.1 small (Ranftl 2020) on EfficientNet-Lite3."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model(
            "tf_efficientnet_lite3", pretrained=False, features_only=True, out_indices=(1, 2, 3, 4)
        )
        widths = [64, 128, 256, 512]
        self.scratch = nn.ModuleList(
            nn.Conv2d(a, b, 3, 1, 1, bias=False) for a, b in zip([32, 48, 136, 384], widths, strict=True)
        )
        self.before = nn.ModuleList(_Residual(w) for w in widths[:-1])
        self.after = nn.ModuleList(_Residual(w) for w in widths)
        self.out = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in zip(widths, [64, 64, 128, 256], strict=True))
        self.head = nn.ModuleList([nn.Conv2d(64, 32, 3, 1, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.Conv2d(32, 1, 1)])

    def forward(self, image: Tensor) -> Tensor:
        kept = [conv(f) for conv, f in zip(self.scratch, self.body(image), strict=True)]
        value: Tensor | None = None
        for i in (3, 2, 1, 0):
            joined = kept[i] if value is None else value + self.before[i](kept[i])
            joined = F.interpolate(self.after[i](joined), scale_factor=2, mode="bilinear", align_corners=True)
            value = self.out[i](joined)
        value = F.interpolate(self.head[0](value), scale_factor=2, mode="bilinear", align_corners=False)
        return F.relu(self.head[2](F.relu(self.head[1](value))))


class HrNetFace(nn.Module):
    """HRNet-W18 (Wang 2020) for 29 face landmarks: the four resolutions joined at the largest."""

    def __init__(self) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model("hrnet_w18", pretrained=False)
        del self.body.incre_modules, self.body.downsamp_modules, self.body.final_layer, self.body.classifier
        self.head = nn.Sequential(nn.Conv2d(270, 270, 1), nn.BatchNorm2d(270), nn.ReLU(), nn.Conv2d(270, 29, 1))

    def forward(self, image: Tensor) -> Tensor:
        body = self.body
        value = body.act2(body.bn2(body.conv2(body.act1(body.bn1(body.conv1(image))))))
        kept = body.stages(value)
        size = kept[0].shape[2:]
        kept = [kept[0], *(F.interpolate(k, size=size, mode="bilinear", align_corners=False) for k in kept[1:])]
        return self.head(torch.cat(kept, 1))


class DeepBox(nn.Module):
    """Deep3DBox (Mousavian 2017): angle, confidence and size of a box from a VGG-19 with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision import models

        self.body = models.vgg19_bn(weights=None).features

        def head(width: int, outputs: int) -> nn.Sequential:
            layers = [nn.Linear(25088, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)]
            return nn.Sequential(*layers)

        self.angle, self.size, self.confidence = head(256, 4), head(512, 3), head(256, 2)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value = self.body(image).flatten(1)
        angle = F.normalize(self.angle(value).view(-1, 2, 2), dim=2)
        return angle, self.confidence(value), self.size(value)


class _Aot(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.ReflectionPad2d(d), nn.Conv2d(256, 64, 3, dilation=d), nn.ReLU()) for d in (1, 2, 4, 8)
        )
        self.fuse = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(256, 256, 3))
        self.gate = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(256, 256, 3))

    def forward(self, value: Tensor) -> Tensor:
        out = self.fuse(torch.cat([branch(value) for branch in self.branches], 1))
        gate = self.gate(value)
        mean, std = gate.mean((2, 3), keepdim=True), gate.std((2, 3), keepdim=True) + 1e-9
        mask = torch.sigmoid(5 * (2 * (gate - mean) / std - 1))
        return value * (1 - mask) + out * mask


class AotGan(nn.Module):
    """AOT-GAN's generator (Zeng 2021): eight blocks of dilated convolutions."""

    def __init__(self) -> None:
        super().__init__()
        encoder = [nn.ReflectionPad2d(3), nn.Conv2d(4, 64, 7), nn.ReLU(), nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, nn.Conv2d(128, 256, 4, 2, 1), nn.ReLU())
        self.blocks = nn.Sequential(*(_Aot() for _ in range(8)))
        self.up = nn.ModuleList([nn.Conv2d(256, 128, 3, 1, 1), nn.Conv2d(128, 64, 3, 1, 1)])
        self.last = nn.Conv2d(64, 3, 3, 1, 1)

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        masked = image * (1 - mask) + mask
        value = self.blocks(self.encoder(torch.cat([masked * 2 - 1, mask], 1)))
        for conv in self.up:
            value = F.relu(conv(F.interpolate(value, scale_factor=2, mode="bilinear", align_corners=True)))
        out = (torch.tanh(self.last(value)) + 1) / 2
        return out * mask + image * (1 - mask)


class XMemKey(nn.Module):
    """The key encoder of XMem (Cheng 2022): ResNet-50 to stride 16 with three projections."""

    def __init__(self, *, shrinkage: bool = True) -> None:
        super().__init__()
        from torchvision import models

        net = models.resnet50(weights=None)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.stages = nn.ModuleList([net.layer1, net.layer2, net.layer3])
        self.key, self.selection = nn.Conv2d(1024, 64, 3, 1, 1), nn.Conv2d(1024, 64, 3, 1, 1)
        self.shrinkage = nn.Conv2d(1024, 1, 3, 1, 1) if shrinkage else None

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        kept = [self.stem(image)]
        for stage in self.stages:
            kept.append(stage(kept[-1]))
        last = kept[-1]
        extra = () if self.shrinkage is None else (self.shrinkage(last).square() + 1,)
        return (self.key(last), *extra, torch.sigmoid(self.selection(last)), *kept[:0:-1])


# -- the YOLO family with cross-stage partial blocks -------------------------------------------------------------------


def _silu(inputs: int, outputs: int, size: int = 1, stride: int = 1, **more: Any) -> nn.Sequential:
    return _conv(inputs, outputs, size, stride, act=nn.SiLU(inplace=True), **more)


class _Bottleneck(nn.Module):
    def __init__(self, width: int, *, add: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(_silu(width, width), _silu(width, width, 3))
        self.add = add

    def forward(self, value: Tensor) -> Tensor:
        return value + self.body(value) if self.add else self.body(value)


class _Csp(nn.Module):
    def __init__(self, inputs: int, outputs: int, count: int, *, add: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.one, self.two, self.join = _silu(inputs, half), _silu(inputs, half), _silu(outputs, outputs)
        self.body = nn.Sequential(*(_Bottleneck(half, add=add) for _ in range(count)))

    def forward(self, value: Tensor) -> Tensor:
        return self.join(torch.cat([self.body(self.one(value)), self.two(value)], 1))


class _Pyramid(nn.Module):
    """Pooling at several sizes, in parallel (YOLOX) or one after another (YOLO v5)."""

    def __init__(self, inputs: int, outputs: int, *, serial: bool) -> None:
        super().__init__()
        self.serial = serial
        self.first, self.last = _silu(inputs, inputs // 2), _silu(inputs * 2, outputs)

    def forward(self, value: Tensor) -> Tensor:
        kept = [self.first(value)]
        for size in (5, 5, 5) if self.serial else (5, 9, 13):
            kept.append(F.max_pool2d(kept[-1 if self.serial else 0], size, 1, size // 2))
        return self.last(torch.cat(kept, 1))


class _CspNet(nn.Module):
    """CSPDarknet and a path aggregation neck: features at strides 8, 16 and 32."""

    def __init__(self, width: float, depth: float, *, yolox: bool) -> None:
        super().__init__()
        w = [round(n * width) for n in (64, 128, 256, 512, 1024)]
        n3, n6, n9 = (max(1, round(n * depth)) for n in (3, 6, 9))
        self.yolox = yolox
        self.stem = _silu(12, w[0], 3) if yolox else _silu(3, w[0], 6, 2, padding=2)
        counts = (n3, n9, n9, n3) if yolox else (n3, n6, n9, n3)
        pools = _Pyramid(w[4], w[4], serial=not yolox)
        stages = []
        for i, count in enumerate(counts):
            csp: nn.Module = _Csp(w[i + 1], w[i + 1], count, add=not (yolox and i == 3))
            if i == 3:
                csp = nn.Sequential(pools, csp) if yolox else nn.Sequential(csp, pools)
            stages.append(nn.Sequential(_silu(w[i], w[i + 1], 3, 2), csp))
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList([_silu(w[4], w[3]), _silu(w[3], w[2])])
        self.top = nn.ModuleList([_Csp(2 * w[3], w[3], n3, add=False), _Csp(2 * w[2], w[2], n3, add=False)])
        self.down = nn.ModuleList([_silu(w[2], w[2], 3, 2), _silu(w[3], w[3], 3, 2)])
        self.bottom = nn.ModuleList([_Csp(2 * w[2], w[3], n3, add=False), _Csp(2 * w[3], w[4], n3, add=False)])

    def forward(self, image: Tensor) -> list[Tensor]:
        if self.yolox:
            parts = [image[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
            image = torch.cat(parts, 1)
        value = self.stem(image)
        kept: list[Tensor] = []
        for stage in self.stages:
            value = stage(value)
            kept.append(value)
        _, small, middle, large = kept
        five = self.lateral[0](large)
        four = self.top[0](torch.cat([F.interpolate(five, scale_factor=2, mode="nearest"), middle], 1))
        four = self.lateral[1](four)
        three = self.top[1](torch.cat([F.interpolate(four, scale_factor=2, mode="nearest"), small], 1))
        lower = self.bottom[0](torch.cat([self.down[0](three), four], 1))
        return [three, lower, self.bottom[1](torch.cat([self.down[1](lower), five], 1))]


class YoloX(nn.Module):
    """YOLOX small (Ge 2021), with the largest class of each box."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _CspNet(0.5, 0.33, yolox=True)
        self.stems = nn.ModuleList(_silu(w, 128) for w in (128, 256, 512))
        self.classes = nn.ModuleList(nn.Sequential(_silu(128, 128, 3), _silu(128, 128, 3)) for _ in range(3))
        self.boxes = nn.ModuleList(nn.Sequential(_silu(128, 128, 3), _silu(128, 128, 3)) for _ in range(3))
        self.heads = nn.ModuleList(nn.ModuleList(nn.Conv2d(128, n, 1) for n in (80, 4, 1)) for _ in range(3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = []
        for i, (level, value) in enumerate(zip(self.heads, self.body(image * 255), strict=True)):
            value = self.stems[i](value)
            box = self.boxes[i](value)
            parts = [level[1](box), level[2](box).sigmoid(), level[0](self.classes[i](value)).sigmoid()]
            found.append(torch.cat(parts, 1).flatten(2))
        every = torch.cat(found, 2).permute(0, 2, 1)
        scores, best = (every[..., 5:] * every[..., 4:5]).max(-1)
        half = every[..., 2:4].exp() / 2
        boxes = torch.cat([every[..., :2] - half, every[..., :2] + half], -1)
        return boxes, scores, best.to(torch.uint8)


class Yolo5(nn.Module):
    """YOLO v5 medium (Jocher 2020): three anchors a cell, with the largest class of each box."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _CspNet(0.75, 0.67, yolox=False)
        self.heads = nn.ModuleList(nn.Conv2d(w, 255, 1) for w in (192, 384, 768))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = []
        for stride, head, value in zip((8, 16, 32), self.heads, self.body(image), strict=True):
            rows, columns = value.shape[2:]
            raw = head(value).view(1, 3, 85, rows, columns).permute(0, 1, 3, 4, 2).sigmoid()
            centre, size, rest = raw.split((2, 2, 81), 4)
            found.append(torch.cat([(centre * 2 - 0.5) * stride, (size * 2) ** 2 * stride, rest], 4).view(1, -1, 85))
        every = torch.cat(found, 1)
        scores, best = (every[..., 5:] * every[..., 4:5]).max(-1)
        half = every[..., 2:4] / 2
        boxes = torch.cat([every[..., :2] - half, every[..., :2] + half], -1)
        return boxes, scores, best.to(torch.uint8)

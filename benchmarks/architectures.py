"""The published architectures that benchmarks/latency.py can export: each at its published input size, random weights.

Names are those of the published measurements (quic/ai-hub-models, perf.yaml). Needs torch, torchvision, timm,
transformers and ultralytics, in an environment of their own; planner itself needs none of them. Weights are random,
since a schedule depends on shapes alone: `python -m benchmarks.latency trained` shows it on models that carry theirs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Architecture:
    """A network as it was measured.

    Attributes:
        model: folder of the published measurement. component: its part of a model that has several, or "".
        family: what is left out together when the model is cross-validated.
        parameters: published, in millions; 0 where none is. A build that is off by more than 5 % is refused.
        build: makes (module, inputs): a torch.nn.Module in eval mode and example inputs by name.
    """

    model: str
    component: str
    family: str
    parameters: float
    build: Callable[[], tuple[Any, dict[str, Any]]]

    @property
    def name(self) -> str:
        return f"{self.model}.{self.component}" if self.component else self.model


def _image(*shape: int) -> dict[str, Any]:
    import torch

    return {"image": torch.rand(shape)}


def _wrap(module: Any, forward: Callable[..., Any]) -> Any:
    """A module whose forward is `forward(module, *inputs)`."""
    from torch import nn

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, *inputs: Any) -> Any:
            return forward(self.inner, *inputs)

    return Wrapped().eval()


def _normalized(image: Any) -> Any:
    import torch

    mean = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    return (image - mean) / torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


def _classifier(make: Callable[[], Any], height: int, width: int) -> tuple[Any, dict[str, Any]]:
    return _wrap(make(), lambda net, image: net(_normalized(image))), _image(1, 3, height, width)


def _torchvision(name: str, height: int = 224, width: int = 224) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision import models

        extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return _classifier(lambda: models.get_model(name, weights=None, **extra), height, width)

    return build


def _timm(name: str, height: int = 224, width: int = 224) -> Callable[[], Any]:
    def build() -> Any:
        import timm

        return _classifier(lambda: timm.create_model(name, pretrained=False), height, width)

    return build


def _video(name: str) -> Callable[[], Any]:
    def build() -> Any:
        from torchvision.models import video

        return getattr(video, name)(weights=None).eval(), {"video": _image(1, 3, 16, 112, 112)["image"]}

    return build


def _segmenter(name: str, height: int, width: int) -> Callable[[], Any]:
    def build() -> Any:
        import torch
        from torchvision.models import segmentation

        net = getattr(segmentation, name)(weights=None, weights_backbone=None, aux_loss=False, num_classes=21)
        return _wrap(net, lambda inner, image: inner(_normalized(image))["out"].argmax(1).to(torch.uint8)), _image(
            1, 3, height, width
        )

    return build


# -- transformers ------------------------------------------------------------------------------------------------------


def _masked_language(kind: str, length: int = 384, *, hides: float = 0.0, **settings: Any) -> Callable[[], Any]:
    """Logits of one masked token, as the published models give it.

    Args:
        kind: of transformers.
        length: of a text.
        hides: what is taken off scores that the mask hides, in the place of transformers' own way.
        settings: of the configuration.
    """

    def build() -> Any:
        import torch
        import transformers

        config = getattr(transformers, f"{kind}Config")(**settings)
        config._attn_implementation = "eager"
        heads = {"Electra": "ElectraForMaskedLM"}
        net = getattr(transformers, heads.get(kind, f"{kind}ForMaskedLM"))(config)

        for value in net.parameters() if hides else ():
            if value.dim() == 1:  # norms of ones and zeros alone could be folded away
                torch.nn.init.uniform_(value, 0.5, 1.5)

        def forward(inner: Any, tokens: Any, mask: Any, index: Any) -> Any:
            mask = ((1.0 - mask) * -hides)[:, None, None] if hides else mask
            logits = inner(tokens, attention_mask=mask).logits
            return logits[torch.arange(1), index.to(torch.int64)].argmax(dim=-1)

        inputs = {
            "input_tokens": torch.ones(1, length, dtype=torch.int32),
            "attention_masks": torch.ones(1, length, dtype=torch.float32),
            "mask_indices": torch.zeros(1, dtype=torch.int32),
        }
        return _wrap(net, forward), inputs

    return build


def _discriminator() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    config = transformers.ElectraConfig(embedding_size=768, hidden_size=768, intermediate_size=3072)
    config.num_hidden_layers, config.num_attention_heads = 12, 12
    config._attn_implementation = "eager"
    net = transformers.ElectraForPreTraining(config)
    inputs = {
        "input_tokens": torch.ones(1, 384, dtype=torch.int32),
        "attention_masks": torch.ones(1, 384, dtype=torch.float32),
    }
    return _wrap(net, lambda inner, tokens, mask: inner(tokens, attention_mask=mask).logits), inputs


def _clip() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    vision = {"patch_size": 16, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    text = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 8}
    config = transformers.CLIPConfig(vision_config={**vision, "num_attention_heads": 12}, text_config=text)
    config._attn_implementation = "eager"
    net = transformers.CLIPModel(config)

    def forward(inner: Any, image: Any, tokens: Any) -> Any:
        return inner(input_ids=tokens.clip(0, 49407), pixel_values=image).logits_per_image

    return _wrap(net, forward), {**_image(1, 3, 224, 224), "text": torch.ones(1, 77, dtype=torch.int32)}


def _segformer() -> tuple[Any, dict[str, Any]]:
    import transformers

    config = transformers.SegformerConfig(num_labels=150)
    config._attn_implementation = "eager"
    net = transformers.SegformerForSemanticSegmentation(config)
    return _wrap(net, lambda inner, image: inner(_normalized(image)).logits), _image(1, 3, 512, 512)


def _detr(kind: str, backbone: str) -> Callable[[], Any]:
    def build() -> Any:
        import torch
        import transformers

        config = getattr(transformers, f"{kind}Config")(
            backbone=backbone, use_timm_backbone=True, use_pretrained_backbone=False, num_labels=91
        )
        config._attn_implementation = "eager"
        net = getattr(transformers, f"{kind}ForObjectDetection")(config)

        def forward(inner: Any, image: Any) -> Any:
            found = inner(_normalized(image), pixel_mask=torch.ones(1, 480, 480, dtype=torch.int64))
            scores, labels = found.logits.softmax(-1)[..., :-1].max(-1)
            return found.pred_boxes * 480, scores, labels.to(torch.uint8)

        return _wrap(net, forward), _image(1, 3, 480, 480)

    return build


def _depth_anything() -> tuple[Any, dict[str, Any]]:
    import transformers

    backbone = transformers.Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_features=["stage3", "stage6", "stage9", "stage12"],
    )
    backbone.reshape_hidden_states, backbone.apply_layernorm = False, True
    backbone._attn_implementation = "eager"
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        reassemble_hidden_size=384,
    )
    net = transformers.DepthAnythingForDepthEstimation(config)
    return _wrap(net, lambda inner, image: inner(_normalized(image)).predicted_depth), _image(1, 3, 518, 518)


def _video_mae() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    config = transformers.VideoMAEConfig(num_labels=400)
    config._attn_implementation = "eager"
    net = transformers.VideoMAEForVideoClassification(config)
    return _wrap(net, lambda inner, video: inner(video.transpose(1, 2)).logits), {
        "video": torch.rand(1, 3, 16, 224, 224)
    }


def _mobile_vit() -> tuple[Any, dict[str, Any]]:
    import transformers

    config = transformers.MobileViTConfig(num_labels=1000)
    config._attn_implementation = "eager"
    net = transformers.MobileViTForImageClassification(config)
    return _wrap(net, lambda inner, image: inner(image).logits), _image(1, 3, 256, 256)


def _trocr_encoder() -> tuple[Any, dict[str, Any]]:
    import transformers
    from torch import nn

    config = transformers.DeiTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=384)
    config._attn_implementation = "eager"
    net = transformers.DeiTModel(config, add_pooling_layer=False)
    # It gives what the six layers of the decoder read of it: their keys and values.
    net.read = nn.ModuleList(nn.Linear(384, 256) for _ in range(12))

    def forward(inner: Any, image: Any) -> Any:
        hidden = inner(image).last_hidden_state
        return tuple(read(hidden).unflatten(-1, (8, 32)).transpose(1, 2) for read in inner.read)

    return _wrap(net, forward), {"pixel_values": _image(1, 3, 384, 384)["image"]}


def _marian_encoder() -> tuple[Any, dict[str, Any]]:
    import torch
    import transformers

    config = transformers.MarianConfig(
        vocab_size=65001,
        d_model=512,
        encoder_layers=6,
        encoder_ffn_dim=2048,
        encoder_attention_heads=8,
        activation_function="swish",
        pad_token_id=65000,
        scale_embedding=True,
        decoder_layers=6,
    )
    config._attn_implementation = "eager"
    net = transformers.MarianModel(config).get_encoder()
    inputs = {"input_ids": torch.ones(1, 256, dtype=torch.int32), "mask": torch.ones(1, 256, dtype=torch.int32)}
    return _wrap(net, lambda inner, tokens, mask: inner(tokens, attention_mask=mask).last_hidden_state), inputs


def _whisper_encoder(width: int, layers: int, heads: int, mels: int = 80) -> Callable[[], Any]:
    def build() -> Any:
        import torch
        import transformers

        config = transformers.WhisperConfig(
            d_model=width,
            encoder_layers=layers,
            encoder_attention_heads=heads,
            encoder_ffn_dim=4 * width,
            num_mel_bins=mels,
        )
        config._attn_implementation = "eager"
        net = transformers.WhisperModel(config).get_encoder()
        return _wrap(net, lambda inner, mel: inner(mel).last_hidden_state), {"mel": torch.rand(1, mels, 3000)}

    return build


# -- ultralytics and others --------------------------------------------------------------------------------------------


def _yolo_segmenter(file: str) -> Callable[[], Any]:
    def build() -> Any:
        from ultralytics.nn import tasks

        net = tasks.SegmentationModel(file, verbose=False).eval()
        head = net.model[-1]
        head.export, head.format = True, "onnx"
        return _wrap(net, lambda inner, image: inner(image)), _image(1, 3, 640, 640)

    return build


def _yolo_detector(file: str) -> Callable[[], Any]:
    """A detector whose corners, scores and best classes are apart, as the published models give them."""

    def build() -> Any:
        from ultralytics.nn import tasks

        from benchmarks.networks_detection import decoded

        net = tasks.DetectionModel(file, verbose=False).eval()
        head = net.model[-1]
        head.forward = lambda found: decoded(found, list(head.cv2), list(head.cv3), head.dfl, (8, 16, 32))
        return _wrap(net, lambda inner, image: inner(image)), _image(1, 3, 640, 640)

    return build


def _network(name: str, inputs: Shapes, **settings: Any) -> Callable[[], Any]:
    """One of the definitions in benchmarks/networks.py and beside it."""

    def build() -> Any:
        import torch

        from benchmarks import networks, networks_detection, networks_mobile, networks_segmentation

        rooms = (networks, networks_detection, networks_mobile, networks_segmentation)
        net = next(getattr(room, name) for room in rooms if hasattr(room, name))(**settings).eval()
        return net, {key: torch.rand(shape) for key, shape in inputs.items()}

    return build


_ALBERT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
_SMALL = {"image": (1, 3, 128, 128)}
_TRACK = {"image": (1, 3, 320, 576)}
_STREET, _STREET_LOW = {"image": (1, 3, 1024, 2048)}, {"image": (1, 3, 512, 1024)}
_MIDDLE, _LARGE = {"image": (1, 3, 256, 256)}, {"image": (1, 3, 640, 640)}
_A = Architecture

ARCHITECTURES: tuple[Architecture, ...] = (
    _A("resnet18", "", "resnet", 11.7, _torchvision("resnet18")),
    _A("resnet50", "", "resnet", 25.5, _torchvision("resnet50")),
    _A("resnet101", "", "resnet", 44.5, _torchvision("resnet101")),
    _A("resnext50", "", "resnet", 25.0, _torchvision("resnext50_32x4d")),
    _A("resnext101", "", "resnet", 88.7, _torchvision("resnext101_32x8d")),
    _A("mobilenet_v2", "", "mobilenet", 3.49, _torchvision("mobilenet_v2")),
    _A("mobilenet_v3_large", "", "mobilenet", 5.47, _torchvision("mobilenet_v3_large")),
    _A("mobilenet_v3_small", "", "mobilenet", 2.54, _torchvision("mobilenet_v3_small")),
    _A("densenet121", "", "densenet", 7.99, _torchvision("densenet121")),
    _A("efficientnet_b4", "", "efficientnet", 19.3, _torchvision("efficientnet_b4", 380, 380)),
    _A("regnet_y_800mf", "", "regnet", 6.43, _torchvision("regnet_y_800mf")),
    _A("shufflenet_v2", "", "shufflenet", 1.37, _torchvision("shufflenet_v2_x0_5")),
    _A("convnext_tiny", "", "convnext", 28.6, _torchvision("convnext_tiny")),
    _A("convnext_base", "", "convnext", 88.6, _torchvision("convnext_base")),
    _A("resnet_3d", "", "resnet3d", 33.4, _video("r3d_18")),
    _A("resnet_2plus1d", "", "resnet3d", 31.5, _video("r2plus1d_18")),
    _A("fcn_resnet50", "", "fcn", 33.0, _segmenter("fcn_resnet50", 520, 520)),
    _A("dla102x", "", "dla", 26.3, _timm("dla102x")),
    _A("efficientvit_b2_cls", "", "efficientvit", 24.3, _timm("efficientvit_b2")),
    _A("efficientvit_l2_cls", "", "efficientvit", 63.7, _timm("efficientvit_l2")),
    _A("nasnet", "", "nasnet", 88.7, _timm("nasnetalarge")),
    _A("bert_base_uncased_hf", "", "bert", 110, _masked_language("Bert")),
    _A("distil_bert_base_uncased_hf", "", "bert", 0, _masked_language("DistilBert")),
    _A("albert_base_v2_hf", "", "bert", 11.8, _masked_language("Albert", **_ALBERT)),
    _A("electra_bert_base_discrim_google", "", "bert", 109, _discriminator),
    # Published are 25.3 M, without the head for masked words.
    _A("mobile_bert_uncased_google", "", "mobilebert", 0, _masked_language("MobileBert", hides=10.0)),
    _A("openai_clip", "", "clip", 150, _clip),
    _A("segformer_base", "", "segformer", 3.75, _segformer),
    _A("detr_resnet50", "", "detr", 41.4, _detr("Detr", "resnet50")),
    _A("detr_resnet101", "", "detr", 60.3, _detr("Detr", "resnet101")),
    _A("conditional_detr_resnet50", "", "detr", 43.6, _detr("ConditionalDetr", "resnet50")),
    _A("depth_anything", "", "depth-anything", 24.7, _depth_anything),
    _A("video_mae", "", "videomae", 87.7, _video_mae),
    _A("mobile_vit", "", "mobilevit", 5.57, _mobile_vit),
    _A("trocr", "TrOCREncoder", "deit", 23.0, _trocr_encoder),
    _A("opus_mt_en_es", "OpusMTEncoder", "marian", 0, _marian_encoder),
    _A("whisper_tiny", "HfWhisperEncoder", "whisper", 9.39, _whisper_encoder(384, 4, 6)),
    _A("whisper_base", "HfWhisperEncoder", "whisper", 23.7, _whisper_encoder(512, 6, 8)),
    _A("whisper_small", "HfWhisperEncoder", "whisper", 102, _whisper_encoder(768, 12, 12)),
    _A("yolov8_det", "", "yolov8", 3.18, _yolo_detector("yolov8n.yaml")),
    _A("yolov8_seg", "", "yolov8", 3.43, _yolo_segmenter("yolov8n-seg.yaml")),
    _A("fastsam_s", "", "yolov8", 11.8, _yolo_segmenter("yolov8s-seg.yaml")),
    _A("fastsam_x", "", "yolov8", 72.2, _yolo_segmenter("yolov8x-seg.yaml")),
    # The second head, which only training uses, is not in the graph, but counted here.
    _A("yolov10_det", "", "yolov10", 0, _yolo_detector("yolov10n.yaml")),
    # Published are 11.5 M at 416 x 416, of an older form; measured is yolov3-tinyu at 640 x 640.
    _A("yolov3", "", "yolov3", 0, _network("Yolo3Tiny", _LARGE)),
    _A("yolov6", "", "yolov6", 4.68, _network("Yolo6", _LARGE)),
    _A("yolov7", "", "yolov7", 6.24, _network("Yolo7Tiny", _LARGE)),
    # Published are 10.49 M beside 45.28 MB in float, which are 11.87 M.
    _A("gpunet", "", "gpunet", 11.87, _network("GpuNet", {"image": (1, 3, 224, 224)})),
    _A("unet_segmentation", "", "unet", 31.0, _network("UNet", {"image": (1, 3, 640, 1280)})),
    _A("quicksrnetsmall", "", "quicksrnet", 0.0333, _network("QuickSRNet", _SMALL, width=32, layers=2)),
    _A("quicksrnetmedium", "", "quicksrnet", 0.061, _network("QuickSRNet", _SMALL, width=32, layers=5)),
    _A("quicksrnetlarge", "", "quicksrnet", 0.436, _network("QuickSRNet", _SMALL, width=64, layers=11, joined=True)),
    _A("sesr_m5", "", "sesr", 0.343, _network("Sesr", _SMALL)),
    _A("xlsr", "", "xlsr", 0.028, _network("Xlsr", _SMALL)),
    _A("real_esrgan_general_x4v3", "", "esrgan", 1.21, _network("CompactVgg", _SMALL)),
    _A("real_esrgan_x4plus", "", "esrgan", 16.7, _network("Rrdb", _SMALL)),
    _A("posenet_mobilenet", "", "mobilenet", 3.31, _network("PoseNet", {"image": (1, 3, 513, 257)})),
    _A("yamnet", "", "mobilenet", 3.73, _network("YamNet", {"audio": (1, 1, 96, 64)})),
    _A("easyocr", "EasyOCRDetector", "craft", 20.8, _network("Craft", {"image": (1, 3, 608, 800)})),
    _A("deeplabv3_plus_mobilenet", "", "deeplab", 5.80, _network("DeepLabMobile", {"image": (1, 3, 513, 513)})),
    _A("midas", "", "midas", 16.6, _network("Midas", _MIDDLE)),
    _A("hrnet_face", "", "hrnet", 9.68, _network("HrNetFace", _MIDDLE)),
    _A("deepbox", "VGG3DDetection", "vgg", 46.1, _network("DeepBox", {"image": (1, 3, 224, 224)})),
    _A("aotgan", "", "aotgan", 15.2, _network("AotGan", {"image": (1, 3, 512, 512), "mask": (1, 1, 512, 512)})),
    _A("track_anything", "TrackAnythingEncodeKeyWithShrinkage", "xmem", 9.72, _network("XMemKey", _TRACK)),
    _A("yolox", "", "yolox", 8.98, _network("YoloX", _LARGE)),
    _A("yolov5", "", "yolov5", 21.2, _network("Yolo5", _LARGE)),
    _A("ffnet_40s", "", "ffnet", 13.9, _network("FFNet", _STREET, depths=(4, 5, 6, 4))),
    _A("ffnet_78s", "", "ffnet", 27.5, _network("FFNet", _STREET, depths=(6, 12, 12, 8))),
    _A("ffnet_78s_lowres", "", "ffnet", 26.8, _network("FFNet", _STREET_LOW, depths=(6, 12, 12, 8), low=True)),
    _A("ffnet_122ns_lowres", "", "ffnet", 32.1, _network("FFNet", _STREET_LOW, depths=(16, 24, 20), low=True)),
    _A("bisenet", "", "bisenet", 12.0, _network("BiSeNet", {"image": (1, 3, 720, 960)})),
    _A("deeplab_xception", "", "deeplab", 41.26, _network("DeepLabXception", {"image": (1, 3, 480, 520)})),
    _A("bgnet", "", "bgnet", 77.8, _network("BgNet", {"image": (1, 3, 416, 416)})),
    _A("gear_guard_net", "", "gear-guard", 6.19, _network("GearGuard", {"image": (1, 3, 320, 192)})),
    _A("face_det_lite", "", "face-det-lite", 0.878, _network("FaceDetLite", {"input": (1, 1, 480, 640)})),
    _A("foot_track_net", "", "face-det-lite", 2.53, _network("FootTrack", {"image": (1, 3, 480, 640)})),
    # Published are 12.1 M, of an older network with a part that the measured one has no more.
    _A("face_attrib_net", "", "face-attrib", 0, _network("FaceAttrib", {"image": (1, 3, 128, 128)})),
    _A("mediapipe_face", "FaceDetector", "blaze", 0.135, _network("BlazeFace", _MIDDLE)),
    _A("mediapipe_face", "FaceLandmarkDetector", "blaze", 0.603, _network("FaceMesh", {"image": (1, 3, 192, 192)})),
    _A("mediapipe_pose", "PoseDetector", "blaze", 0.815, _network("BlazePose", {"image": (1, 3, 128, 128)})),
    _A("mediapipe_pose", "PoseLandmarkDetector", "blaze", 3.36, _network("BlazePoseLandmarks", _MIDDLE)),
)


def export(architecture: Architecture, path: Path) -> None:
    """Write the architecture as ONNX, opset 17, float32.

    Raises:
        ValueError: the number of parameters is not the published one.
    """
    import torch

    torch.manual_seed(0)
    module, inputs = architecture.build()
    found = sum(p.numel() for p in module.parameters()) / 1e6
    if architecture.parameters and abs(found / architecture.parameters - 1) > 0.05:
        raise ValueError(f"{found:.2f} M parameters; published: {architecture.parameters} M")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with torch.no_grad():
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(temporary),
            input_names=list(inputs),
            opset_version=17,
            dynamo=False,
            do_constant_folding=True,
        )
    temporary.rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    args = parser.parse_args()
    for architecture in ARCHITECTURES:
        path = args.folder / f"{architecture.name}.onnx"
        if path.exists() or (args.only and architecture.name not in args.only):
            continue
        started = time.perf_counter()
        try:
            export(architecture, path)
        except Exception as error:
            print(f"{architecture.name}: not exported: {type(error).__name__}: {str(error)[:300]}", flush=True)
        else:
            print(f"{architecture.name}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()

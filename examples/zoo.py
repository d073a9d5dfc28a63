"""Models of many kinds as their users export them, at tiny sizes and with random weights: `python -m examples.zoo DIR`.

Each is written as DIR/NAME.onnx with DIR/NAME.npz, inputs that fit it. Kinds, exporters and opsets are mixed on purpose: what an
exporter writes decides what an execution provider takes. Needs the extra `zoo` (CPU builds suffice), in an environment
of its own; planner itself needs none of it.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Exporter = Literal["torchscript", "dynamo", "skl2onnx"]
_SAMPLES, _SEED = 8, 0


@dataclass(frozen=True)
class Entry:
    """A model of the zoo.

    Attributes:
        name: of its files.
        kind: what it is for, as users ask.
        build: makes it: a torch module in eval mode, or a fitted estimator.
        inputs: by name, what makes an array of so many samples, the leading axis first.
        exporter: what writes the file.
        opset: that it is asked for.
        open: names of inputs whose first dimension stays open.
    """

    name: str
    kind: str
    build: Callable[[], Any]
    inputs: Mapping[str, Callable[[int], Array]]
    exporter: Exporter = "torchscript"
    opset: int = 17
    open: tuple[str, ...] = ()


# -- inputs ---------------------------------------------------------------------------------------------------------------


def pictures(*shape: int) -> Callable[[int], Array]:
    """Smooth pictures with edges, about -2..2, of shape (samples, *shape)."""

    def make(count: int) -> Array:
        rng = np.random.default_rng(_SEED)
        rows, columns = np.mgrid[0 : shape[-2], 0 : shape[-1]] / max(shape[-2:])
        planes = []
        for _ in range(count * int(np.prod(shape[:-2]))):
            waves = rng.normal(size=(4, 4)) * (1, 6, 6, 3)
            plane = sum(a * np.sin(u * rows + v * columns + p) for a, u, v, p in waves) + (columns > rng.uniform())
            planes.append(plane)
        return np.asarray(planes, np.float32).reshape(count, *shape) / 2

    return make


def tokens(length: int, words: int) -> Callable[[int], Array]:
    """Indices of words, int64, of shape (samples, length)."""
    return lambda count: np.random.default_rng(_SEED).integers(3, words, (count, length))


def mask(length: int) -> Callable[[int], Array]:
    """An attention mask, int64: ones up to each text's end."""

    def make(count: int) -> Array:
        ends = np.random.default_rng(_SEED).integers(length // 2, length + 1, count)
        return (np.arange(length) < ends[:, None]).astype(np.int64)

    return make


def numbers(*shape: int) -> Callable[[int], Array]:
    """Normal numbers, float32, of shape (samples, *shape)."""
    return lambda count: np.random.default_rng(_SEED).normal(size=(count, *shape)).astype(np.float32)


def sound(length: int) -> Callable[[int], Array]:
    """Tones with noise, float32, of shape (samples, length)."""

    def make(count: int) -> Array:
        rng = np.random.default_rng(_SEED)
        tone = np.sin(np.arange(length) * rng.uniform(0.02, 0.4, (count, 1)))
        return (tone + 0.1 * rng.normal(size=(count, length))).astype(np.float32)

    return make


# -- models ---------------------------------------------------------------------------------------------------------------


def _torchvision(name: str, **more: Any) -> Callable[[], Any]:
    def build() -> Any:
        import torchvision

        return getattr(torchvision.models, name)(weights=None, num_classes=10, **more)

    return build


def _vision(build: Callable[[Any], Any]) -> Callable[[], Any]:
    def made() -> Any:
        import torchvision

        return build(torchvision.models)

    return made


def _timm(name: str, **more: Any) -> Callable[[], Any]:
    def build() -> Any:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **more)

    return build


def _transformers(model: str, config: str, outputs: Sequence[str], **more: Any) -> Callable[[], Any]:
    """A model of transformers that takes its inputs by position, in the order of their names, and gives tensors alone."""

    def build() -> Any:
        import torch
        import transformers

        made = getattr(transformers, model)(getattr(transformers, config)(**more))

        class Wrapped(torch.nn.Module):
            def __init__(self, names: Sequence[str]) -> None:
                super().__init__()
                self.inner, self.names = made, names

            def forward(self, *inputs: Any) -> Any:
                given = dict(zip(self.names, inputs, strict=True))
                found = self.inner(**given, **self.off())
                return tuple(found[name] for name in outputs)

            def off(self) -> dict[str, Any]:
                return {"use_cache": False} if hasattr(self.inner.config, "use_cache") else {}

        return Wrapped

    return build


_TEXT = {"input_ids": tokens(16, 100), "attention_mask": mask(16)}
_BERT = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 40,
}  # fmt: skip
_LLAMA = {**_BERT, "num_key_value_heads": 2}
_IMAGE = {"pixel_values": pictures(3, 32, 32)}
_SMALL = {"x": pictures(3, 64, 64)}
_H = ("last_hidden_state",)


def _own(name: str) -> Callable[[], Any]:
    def build() -> Any:
        from examples import zoo_networks

        return getattr(zoo_networks, name)()

    return build


def _sklearn(build: Callable[[], Any]) -> Callable[[], Any]:
    def fitted() -> Any:
        rng = np.random.default_rng(_SEED)
        x = rng.normal(size=(200, 6)).astype(np.float32)
        return build().fit(x, (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(np.int64))

    return fitted


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(5, max_depth=4, random_state=0)


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression())


def _perceptron() -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((16,), max_iter=300, random_state=0)


_ROWS = {"X": numbers(6)}
ZOO: tuple[Entry, ...] = (
    Entry("resnet18", "image classification", _torchvision("resnet18"), _SMALL, "torchscript", 13, ("x",)),
    Entry("resnet18_dynamo", "image classification", _torchvision("resnet18"), _SMALL, "dynamo", 18),
    Entry("mobilenet_v2", "image classification", _torchvision("mobilenet_v2"), _SMALL, "torchscript", 11),
    Entry("mobilenet_v3_small", "image classification", _torchvision("mobilenet_v3_small"), _SMALL, "dynamo", 20),
    Entry("efficientnet_b0", "image classification", _torchvision("efficientnet_b0"), _SMALL, "torchscript", 17),
    Entry("shufflenet_v2", "image classification", _torchvision("shufflenet_v2_x0_5"), _SMALL, "torchscript", 12),
    Entry("squeezenet", "image classification", _torchvision("squeezenet1_1"), _SMALL, "torchscript", 9),
    Entry("regnet_y", "image classification", _torchvision("regnet_y_400mf"), _SMALL, "dynamo", 18),
    Entry(
        "densenet", "image classification",
        _vision(lambda m: m.DenseNet(12, (2, 2, 2), 16, num_classes=10)), _SMALL, "torchscript", 16,
    ),
    Entry(
        "vit", "image classification",
        _vision(lambda m: m.VisionTransformer(64, 16, 2, 4, 64, 128, num_classes=10)), _SMALL, "dynamo", 18,
    ),
    Entry(
        "swin", "image classification",
        _vision(lambda m: m.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], num_classes=10)), _SMALL, "torchscript", 17,
    ),
    Entry("convnext", "image classification", _timm("convnext_atto"), _SMALL, "dynamo", 18),
    Entry("mobilevit", "image classification", _timm("mobilevit_xxs"), _SMALL, "torchscript", 17),
    Entry("ghostnet", "image classification", _timm("ghostnet_050"), _SMALL, "torchscript", 15),
    Entry("repvgg", "image classification", _timm("repvgg_a0"), {"x": pictures(3, 32, 32)}, "torchscript", 14),
    Entry("edgenext", "image classification", _timm("edgenext_xx_small"), _SMALL, "dynamo", 18),
    Entry("mixer", "image classification", _own("Mixer"), _SMALL, "torchscript", 17),
    Entry("deeplab", "segmentation", _own("Deeplab"), _SMALL, "torchscript", 11),
    Entry("unet", "segmentation", _own("UNet"), _SMALL, "dynamo", 21),
    Entry("segformer", "segmentation", _transformers(
        "SegformerForSemanticSegmentation", "SegformerConfig", ("logits",), num_encoder_blocks=2, depths=[1, 1],
        sr_ratios=[4, 2], hidden_sizes=[16, 32], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2],
        decoder_hidden_size=32,
    ), {"pixel_values": pictures(3, 64, 64)}, "torchscript", 17),
    Entry("detector", "object detection", _own("Detector"), {"x": pictures(3, 96, 96)}, "torchscript", 17),
    Entry("yolos", "object detection", _transformers(
        "YolosForObjectDetection", "YolosConfig", ("logits", "pred_boxes"), hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, image_size=[32, 32], patch_size=8, num_detection_tokens=5,
    ), _IMAGE, "torchscript", 17),
    Entry("super_resolution", "picture enhancement", _own("SuperResolution"), {"x": pictures(3, 32, 32)}, "torchscript", 13),
    Entry("generator", "picture generation", _own("Generator"), {"z": numbers(16)}, "torchscript", 14),
    Entry("diffusion_block", "picture generation", _own("DiffusionBlock"), {
        "x": pictures(8, 16, 16), "t": lambda count: np.linspace(0, 1, count, dtype=np.float32)[:, None],
    }, "dynamo", 21),
    Entry("bert", "text encoder", _transformers("BertModel", "BertConfig", _H, **_BERT), _TEXT, "dynamo", 18),
    Entry(
        "bert_open", "text encoder", _transformers("BertModel", "BertConfig", _H, **_BERT), _TEXT, "torchscript", 14,
        ("input_ids", "attention_mask"),
    ),
    Entry("distilbert", "text classification", _transformers(
        "DistilBertForSequenceClassification", "DistilBertConfig", ("logits",), vocab_size=100, dim=32, n_layers=2, n_heads=4,
        hidden_dim=64, max_position_embeddings=40,
    ), _TEXT, "torchscript", 17),
    Entry("albert", "text encoder", _transformers(
        "AlbertModel", "AlbertConfig", _H, **_BERT, embedding_size=16,
    ), _TEXT, "dynamo", 20),
    Entry("roberta", "text encoder", _transformers("RobertaModel", "RobertaConfig", _H, **_BERT), _TEXT, "torchscript", 15),
    Entry("electra", "text classification", _transformers(
        "ElectraForSequenceClassification", "ElectraConfig", ("logits",), **_BERT, embedding_size=16,
    ), _TEXT, "dynamo", 18),
    Entry("gpt2", "language model", _transformers(
        "GPT2LMHeadModel", "GPT2Config", ("logits",), vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=40,
    ), {"input_ids": tokens(16, 100)}, "dynamo", 20),
    Entry("llama", "language model", _transformers(
        "LlamaForCausalLM", "LlamaConfig", ("logits",), **_LLAMA,
    ), _TEXT, "dynamo", 18),
    Entry("qwen2", "language model", _transformers(
        "Qwen2ForCausalLM", "Qwen2Config", ("logits",), **_LLAMA,
    ), {"input_ids": tokens(16, 100)}, "dynamo", 21),
    Entry("t5_encoder", "translation", _transformers(
        "T5EncoderModel", "T5Config", _H, vocab_size=100, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4,
    ), _TEXT, "torchscript", 17),
    Entry("clip_vision", "pictures and text", _transformers(
        "CLIPVisionModel", "CLIPVisionConfig", ("pooler_output",), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, image_size=32, patch_size=8,
    ), _IMAGE, "dynamo", 18),
    Entry("whisper_encoder", "speech", _own("WhisperEncoder"), {"features": numbers(16, 64)}, "torchscript", 17),
    Entry("wav2vec2", "speech", _transformers(
        "Wav2Vec2ForCTC", "Wav2Vec2Config", ("logits",), vocab_size=32, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=4, intermediate_size=64, conv_dim=(16, 16), conv_stride=(5, 4), conv_kernel=(10, 8),
        num_feat_extract_layers=2, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    ), {"input_values": sound(1600)}, "torchscript", 17),
    Entry("keyword_spotter", "speech", _own("KeywordSpotter"), {"x": numbers(1, 40, 32)}, "dynamo", 18),
    Entry("lstm", "time series", _own("Lstm"), {"x": numbers(20, 8)}, "torchscript", 14),
    Entry("gru", "time series", _own("Gru"), {"x": numbers(20, 8)}, "torchscript", 17),
    Entry("temporal_convolution", "time series", _own("TemporalConvolution"), {"x": numbers(8, 64)}, "dynamo", 23),
    Entry("graph_network", "graphs", _own("GraphNetwork"), {
        "nodes": numbers(12, 8), "adjacency": lambda count: np.random.default_rng(0).integers(0, 2, (count, 12, 12)).astype(np.float32),
    }, "torchscript", 16),
    Entry("recommender", "recommendation", _own("Recommender"), {
        "who": tokens(1, 50), "what": tokens(6, 80), "rest": numbers(5),
    }, "torchscript", 17),
    Entry("sklearn_logistic", "tables", _sklearn(_logistic), _ROWS, "skl2onnx", 17),
    Entry("sklearn_perceptron", "tables", _sklearn(_perceptron), _ROWS, "skl2onnx", 15),
    Entry("sklearn_forest", "tables", _sklearn(_forest), _ROWS, "skl2onnx", 18),
)  # fmt: skip


# -- export ---------------------------------------------------------------------------------------------------------------


def export(entry: Entry, folder: Path) -> Path:
    """Write the model and its inputs; the path of the model.

    Raises:
        Exception: whatever the exporter raises.
    """
    path = folder / f"{entry.name}.onnx"
    feeds = {name: make(_SAMPLES) for name, make in entry.inputs.items()}
    if entry.exporter == "skl2onnx":
        from skl2onnx import to_onnx

        made = to_onnx(entry.build(), feeds["X"][:1], target_opset=entry.opset)
        path.write_bytes(made.SerializeToString())
    else:
        _export_torch(entry, feeds, path)
    # Every sample as the model takes it: its own batch of one, in front of which the file counts samples.
    np.savez(folder / f"{entry.name}.npz", allow_pickle=False, **feeds)
    return path


def _export_torch(entry: Entry, feeds: Mapping[str, Array], path: Path) -> None:
    import torch

    torch.manual_seed(_SEED)
    built = entry.build()
    module = built(tuple(feeds)) if isinstance(built, type) else built
    if any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in module.modules()):
        # As after training: batch norms that know their statistics, or numbers would grow from layer to layer.
        module.train()
        with torch.no_grad():
            for _ in range(20):
                module(*(torch.from_numpy(array) for array in feeds.values()))
    module.eval()
    args = tuple(torch.from_numpy(array[:1]) for array in feeds.values())
    dynamo = entry.exporter == "dynamo"
    opened: dict[str, Any] = {name: {0: "batch"} for name in entry.open}
    with warnings.catch_warnings(), torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        torch.onnx.export(
            module, args, str(path), input_names=list(feeds), opset_version=entry.opset, dynamo=dynamo,
            **({"external_data": False} if dynamo else {"dynamic_axes": opened}),
        )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the zoo into a folder; 1 where a model could not be exported."""
    parser = argparse.ArgumentParser(prog="python -m examples.zoo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="these alone")
    args = parser.parse_args(arguments)
    args.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for entry in ZOO:
        if args.names and entry.name not in args.names:
            continue
        if not args.names and (args.folder / f"{entry.name}.npz").exists():
            continue
        try:
            path = export(entry, args.folder)
        except Exception:
            failed += 1
            print(f"{entry.name}: not exported: {traceback.format_exc(limit=-2)}", file=sys.stderr, flush=True)
        else:
            print(f"{path} ({path.stat().st_size:,} bytes)", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

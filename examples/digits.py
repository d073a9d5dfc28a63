"""A digit classifier trained here: a small convolutional network on scikit-learn's 8x8 digits, in numpy.

    python -m examples.digits -o digits.onnx

Conv 3x3 (16) - Relu - Conv 3x3 (32) - Relu - MaxPool 2x2 - Gemm (64) - Relu - Gemm (10), trained by plain
backpropagation with Adam; seeded. A quarter of the 1,797 pictures is held apart for testing, and labelled.

The file is the same on every machine. Libraries add up a product of matrices in different orders, and each order rounds
differently. Here every factor is rounded to a multiple of a power of two, so coarse that float64 holds each sum exactly:
its order does not matter.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from examples.fetch import cache_folder

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Weights = dict[str, Doubles]

_EPOCHS, _BATCH, _RATE, _SEED = 12, 64, 2e-3, 5
# Bits behind the binary point. Sums of activations (below 2^6) times weights (below 2^2) have 12 + 20 such bits, those with
# slopes (below 2^-4) at most 24 + 20; none reaches the 53 bits of float64.
_ACTIVATION, _WEIGHT, _SLOPE = 12, 20, 24
# Part of the cached file's name: to be raised with any change to training or to the graph.
_VERSION = 2
# SHA-256 of the file.
SHA256 = "99971ac6fbf4c4cdbe84df0b7a2d720fa684fa9b3292f528efb4b0ec3f8916a3"


@dataclass(frozen=True)
class Digits:
    """The pictures: float32 [n, 1, 8, 8] in 0..1, labels int64 [n]."""

    train: Floats
    train_labels: Labels
    test: Floats
    test_labels: Labels


@functools.cache
def data() -> Digits:
    """scikit-learn's digits, three quarters for training and one for testing, classes in proportion."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train, test, train_labels, test_labels = train_test_split(
        pictures, labels.astype(np.int64), test_size=0.25, random_state=_SEED, stratify=labels
    )
    return Digits(train, train_labels, test, test_labels)


def model() -> tuple[Path, Floats, Labels]:
    """The trained model (kept in the cache), the test pictures float32 [450, 1, 8, 8] and their labels int64 [450]."""
    path = cache_folder() / f"digits-v{_VERSION}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.part")
        export(train(data()), partial)
        partial.replace(path)
    return path, data().test, data().test_labels


def train(digits: Digits) -> Weights:
    """Train from scratch: some ten seconds. The weights are exact in float32."""
    rng = np.random.default_rng(_SEED)
    weights = {
        "conv1.weight": _initial(rng, 16, 1, 3, 3),
        "conv1.bias": np.zeros(16),
        "conv2.weight": _initial(rng, 32, 16, 3, 3),
        "conv2.bias": np.zeros(32),
        "fc1.weight": _initial(rng, 64, 512),
        "fc1.bias": np.zeros(64),
        "fc2.weight": _initial(rng, 10, 64),
        "fc2.bias": np.zeros(10),
    }
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    faded_first = faded_second = 1.0
    for _ in range(_EPOCHS):
        for batch in np.array_split(rng.permutation(len(digits.train)), len(digits.train) // _BATCH):
            faded_first, faded_second = 0.9 * faded_first, 0.999 * faded_second
            for name, slope in _gradients(weights, digits.train[batch], digits.train_labels[batch]).items():
                first[name] = 0.9 * first[name] + 0.1 * slope
                second[name] = 0.999 * second[name] + 0.001 * slope**2
                mean, variance = first[name] / (1 - faded_first), second[name] / (1 - faded_second)
                weights[name] = _rounded(weights[name] - _RATE * mean / (np.sqrt(variance) + 1e-8), _WEIGHT)
    return weights


def export(weights: Weights, path: Path) -> None:
    """Write the network as ONNX, opset 17: "image" float32 [1, 1, 8, 8] -> "logits" float32 [1, 10]."""
    conv = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], "conv1", **conv),
        helper.make_node("Relu", ["conv1"], ["relu1"], "relu1"),
        helper.make_node("Conv", ["relu1", "conv2.weight", "conv2.bias"], ["conv2"], "conv2", **conv),
        helper.make_node("Relu", ["conv2"], ["relu2"], "relu2"),
        helper.make_node("MaxPool", ["relu2"], ["pool"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "fc1.weight", "fc1.bias"], ["fc1"], "fc1", transB=1),
        helper.make_node("Relu", ["fc1"], ["relu3"], "relu3"),
        helper.make_node("Gemm", ["relu3", "fc2.weight", "fc2.bias"], ["logits"], "fc2", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, str(path))


def predict(weights: Weights, pictures: Floats) -> Labels:
    """The network in numpy, class of each picture int64 [n]."""
    return np.asarray(np.argmax(_forward(weights, pictures)["logits"], axis=1), np.int64)


def _rounded(x: npt.ArrayLike, bits: int) -> Doubles:
    """The nearest multiples of 2^-bits."""
    scale = 2.0**bits
    return np.asarray(np.rint(np.asarray(x, np.float64) * scale) / scale)


def _product(a: Doubles, b: Doubles) -> Doubles:
    """The matrix product: exact, since both factors are rounded."""
    return np.asarray(a @ b)


def _initial(rng: np.random.Generator, *shape: int) -> Doubles:
    return _rounded(rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])), _WEIGHT)


def _patches(x: Doubles) -> Doubles:
    """3x3 neighbourhoods, padded with zeros: [n, c, h, w] -> [n, h, w, c * 9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(n, h, w, c * 9)


def _conv(patches: Doubles, weight: Doubles, bias: Doubles) -> Doubles:
    return (_product(patches, weight.reshape(len(weight), -1).T) + bias).transpose(0, 3, 1, 2)


def _forward(weights: Weights, x: Floats) -> dict[str, Doubles]:
    v: dict[str, Doubles] = {"patches1": _patches(np.asarray(x, np.float64))}
    v["conv1"] = _rounded(_conv(v["patches1"], weights["conv1.weight"], weights["conv1.bias"]), _ACTIVATION)
    v["patches2"] = _patches(np.maximum(v["conv1"], 0))
    v["conv2"] = _rounded(_conv(v["patches2"], weights["conv2.weight"], weights["conv2.bias"]), _ACTIVATION)
    n, c, h, w = v["conv2"].shape
    cells = np.maximum(v["conv2"], 0).reshape(n, c, h // 2, 2, w // 2, 2)
    v["cells"] = cells.transpose(0, 1, 2, 4, 3, 5).reshape(n, -1, 4)
    v["pool"] = v["cells"].max(axis=2)
    v["fc1"] = _rounded(_product(v["pool"], weights["fc1.weight"].T) + weights["fc1.bias"], _ACTIVATION)
    v["logits"] = _product(np.maximum(v["fc1"], 0), weights["fc2.weight"].T) + weights["fc2.bias"]
    return v


def _gradients(weights: Weights, x: Floats, labels: Labels) -> Weights:
    """Slope of the mean cross-entropy over a batch with respect to every weight."""
    v = _forward(weights, x)
    n = len(x)
    odds = _rounded(np.exp(v["logits"] - v["logits"].max(axis=1, keepdims=True)), _SLOPE)
    d = odds / odds.sum(axis=1, keepdims=True)
    d[np.arange(n), labels] -= 1
    d = _rounded(d / n, _SLOPE)
    slopes: Weights = {"fc2.weight": _product(d.T, np.maximum(v["fc1"], 0)), "fc2.bias": d.sum(axis=0)}
    d = _rounded(_product(d, weights["fc2.weight"]), _SLOPE) * (v["fc1"] > 0)
    slopes |= {"fc1.weight": _product(d.T, v["pool"]), "fc1.bias": d.sum(axis=0)}
    cells = np.zeros_like(v["cells"])
    d = _rounded(_product(d, weights["fc1.weight"]), _SLOPE)
    np.put_along_axis(cells, v["cells"].argmax(axis=2)[..., None], d[..., None], axis=2)
    shape = v["conv2"].shape
    d = cells.reshape(n, shape[1], shape[2] // 2, shape[3] // 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(shape)
    d = d * (v["conv2"] > 0)
    slopes |= _conv_slopes("conv2", d, v["patches2"], weights)
    # The gradient of a padded 3x3 convolution is the convolution with the kernel turned around.
    turned = weights["conv2.weight"][:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    d = _rounded(_conv(_patches(d), turned, np.zeros(len(turned))), _SLOPE) * (v["conv1"] > 0)
    return slopes | _conv_slopes("conv1", d, v["patches1"], weights)


def _conv_slopes(name: str, d: Doubles, patches: Doubles, weights: Weights) -> Weights:
    columns = d.transpose(0, 2, 3, 1).reshape(-1, d.shape[1])
    weight = _product(columns.T, patches.reshape(len(columns), -1))
    return {f"{name}.weight": weight.reshape(weights[f"{name}.weight"].shape), f"{name}.bias": columns.sum(axis=0)}


def main(arguments: Iterable[str] | None = None) -> int:
    """Train and write the model, and say how good it is."""
    parser = argparse.ArgumentParser(prog="python -m examples.digits", description="Train the digit classifier.")
    parser.add_argument("-o", "--output", type=Path, default=Path("digits.onnx"))
    output = parser.parse_args(None if arguments is None else list(arguments)).output
    weights = train(data())
    export(weights, output)
    right = int((predict(weights, data().test) == data().test_labels).sum())
    print(f"{output}: {right} of {len(data().test)} test pictures right ({right / len(data().test):.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Mean and covariance of the data that a model multiplies by its weights: what is needed to learn how to round these.

The float32 model runs on some of the calibration samples; of each product's data some rows are looked at (of a Conv, what lies
under its kernel at some places). Memory is bounded: a few tensors travel at a time, and the moments lie in files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.calibrate.inputs import Sample
from planner.calibrate.spread import evenly
from planner.model.exposed import exposed, in_batches
from planner.model.passes.match import int_attribute
from planner.model.read import Model
from planner.model.values import tensor_dtype
from planner.model.write import save
from planner.operators import summed_axis
from planner.progress import Progress, silent
from planner.runtime.client import Worker
from planner.runtime.registry import CPU

# Samples and rows of data that a product's moments are taken from, and the longest rows: their moments grow with the square.
SAMPLES, ROWS, LONGEST = 24, 4096, 2048
# With fewer samples nothing is learned.
_FEWEST = 8
# Bytes of tensors that one run of the model gives out.
_AT_ONCE = 1 << 28


def teaching(count: int) -> tuple[list[int], list[int]]:
    """Of so many samples, the places of those that teach how to round, and of those that judge whether that gains.

    Every fourth judges. Where there are too few of either, none teaches.
    """
    if count < _FEWEST:
        return [], list(range(count))
    judging = list(range(1, count, 4))
    return evenly([place for place in range(count) if place not in judging], SAMPLES), judging


@dataclass(frozen=True)
class Moments:
    """Of the rows that a weight is multiplied by.

    Attributes:
        rows: how many were looked at.
        mean: float32[groups, k]. covariance: float32[groups, k, k].
    """

    rows: int
    mean: np.ndarray
    covariance: np.ndarray


@dataclass(frozen=True)
class _Product:
    """A Conv, Gemm or MatMul of the main graph with a constant weight that nothing else reads.

    Attributes:
        data: name of what it multiplies. bytes: of that; 0 where its shape is open.
        groups, length: how many rows a place has, and how long they are.
        kernel, strides, pads, dilations: of a Conv; empty otherwise.
    """

    name: str
    data: str
    bytes: int
    groups: int
    length: int
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()

    @classmethod
    def of(cls, node: ir.Node) -> _Product | None:
        """The product that a node is; None where it is none that can be looked at."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or len(node.inputs) < 2 or not node.name:
            return None
        data, weight = node.inputs[:2]
        if data is None or weight is None or weight.const_value is None or len(weight.uses()) != 1:
            return None
        if not data.name or not (data.producer() or data.is_graph_input()):
            return None
        shape = weight.const_value.shape.numpy()
        if tensor_dtype(data) != ir.DataType.FLOAT or int_attribute(node, "transA", 0):
            return None
        known = data.shape is not None and data.shape.is_static()
        size = 4 * math.prod(data.shape.numpy()) if known and data.shape is not None else 0
        if node.op_type != "Conv":
            summed = summed_axis(node.op_type, {"transB": int_attribute(node, "transB", 0)})
            length = shape[summed] if len(shape) == 2 else 0
            return cls(node.name, data.name, size, 1, length) if 0 < length <= LONGEST else None
        kernel = tuple(shape[2:])
        auto = node.attributes.get("auto_pad")
        length = math.prod(shape[1:])
        if (
            not kernel
            or not 0 < length <= LONGEST
            or (auto is not None and auto.as_string() not in ("NOTSET", "VALID"))
        ):
            return None

        def numbers(name: str, count: int, default: int) -> tuple[int, ...]:
            given = node.attributes.get(name)
            return (default,) * count if given is None else tuple(given.as_ints())

        rank = len(kernel)
        return cls(
            node.name, data.name, size, int_attribute(node, "group", 1), length, kernel,
            numbers("strides", rank, 1), numbers("pads", 2 * rank, 0), numbers("dilations", rank, 1),
        )  # fmt: skip

    def rows(self, data: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
        """Some of the rows that the weight is multiplied by: float32[groups, rows, length]."""
        if not self.kernel:
            rows: np.ndarray = data.reshape(1, -1, self.length)
            return rows[:, _some(rows.shape[1], most, rng)]
        rank = len(self.kernel)
        padding = [(0, 0), (0, 0), *zip(self.pads[:rank], self.pads[rank:], strict=True)]
        reach = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        axes = tuple(range(2, 2 + rank))
        windows: np.ndarray = np.lib.stride_tricks.sliding_window_view(np.pad(data, padding), reach, axis=axes)
        windows = windows[:, :, *(slice(None, None, step) for step in (*self.strides, *self.dilations))]
        extent = (windows.shape[0], *windows.shape[2 : 2 + rank])
        places = np.unravel_index(_some(math.prod(extent), most, rng), extent)
        found = np.moveaxis(windows, 1, 1 + rank)[places]  # rows, channels, kernel
        return found.reshape(len(found), self.groups, self.length).transpose(1, 0, 2)


def _some(count: int, most: int, rng: np.random.Generator) -> np.ndarray:
    return np.arange(count) if count <= most else np.sort(rng.choice(count, most, replace=False))


def collect_moments(
    model: Model, calibration: Sequence[Sample], folder: Path, progress: Progress = silent
) -> dict[str, Moments]:
    """The moments of each product of the float32 model, by name of the node, on the samples that teach.

    The same samples give the same rows.

    Args:
        model: float32, in the form that the plan speaks of.
        calibration: feeds of the model.
        folder: where the moments lie while they are used.
        progress: told of each run.

    Raises:
        EPError: the model does not run.
    """
    assert model.ir is not None
    samples = [calibration[place] for place in teaching(len(calibration))[0]]
    if not samples:
        return {}
    products = [p for node in model.ir.graph if (p := _Product.of(node)) is not None]
    parts = list(in_batches(products, lambda product: product.bytes or _AT_ONCE // 16, _AT_ONCE))
    path, most = folder / "exposed.onnx", -(-ROWS // len(samples))
    found: dict[str, Moments] = {}
    progress("learning how to round", 0, len(parts) * len(samples))
    for done, part in enumerate(parts):
        save(exposed(model.ir, [p.data for p in part]), path, embed=False)
        sums = [_Sums.start(p, folder / f"moments{len(found) + i}") for i, p in enumerate(part)]
        with Worker(CPU) as worker:
            worker.open(path, {}, lean=True)
            for place, sample in enumerate(samples):
                values: dict[str, Any] = {**sample, **worker.run(sample).outputs}
                for i, (product, total) in enumerate(zip(part, sums, strict=True)):
                    if product.data in values:
                        rng = np.random.default_rng((place, len(found) + i))
                        total.add(product.rows(values[product.data], most, rng))
                progress("learning how to round", done * len(samples) + place + 1, len(parts) * len(samples))
        found |= {p.name: total.moments() for p, total in zip(part, sums, strict=True) if total.rows}
    return found


@dataclass
class _Sums:
    """Sums over rows, as they are off a point near their mean: of their own squares little would be left."""

    first: np.ndarray
    second: np.ndarray
    near: np.ndarray | None = None
    rows: int = 0

    @classmethod
    def start(cls, product: _Product, path: Path) -> _Sums:
        shape = (product.groups, product.length)
        return cls(np.zeros(shape, np.float32), np.memmap(path, np.float32, "w+", shape=(*shape, product.length)))

    def add(self, rows: np.ndarray) -> None:
        if not rows.shape[1] or not np.isfinite(rows).all():
            return
        self.near = rows.mean(axis=1) if self.near is None else self.near
        off = rows - self.near[:, None]
        self.first += off.sum(axis=1)
        self.second += off.transpose(0, 2, 1) @ off
        self.rows += rows.shape[1]

    def moments(self) -> Moments:
        assert self.near is not None
        off = self.first / self.rows
        self.second /= self.rows
        self.second -= off[:, :, None] * off[:, None, :]
        return Moments(self.rows, self.near + off, self.second)

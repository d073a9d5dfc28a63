"""ONNX's own shape inference, as far as it comes, and silent."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common


def infer_once(model: ir.Model, *, data_prop: bool = False) -> None:
    """Write down the types and shapes that ONNX infers; what cannot be inferred stays unknown.

    Args:
        model: changed in place.
        data_prop: also follow the numbers that shapes are computed from.
    """
    with quiet(), contextlib.suppress(Exception):
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=data_prop)(model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence, since the libraries' own log lines are about their passes, not about the user's model."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

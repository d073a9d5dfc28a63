"""What is known of a value of a graph before it runs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The value's content if it is an initializer, else None. A graph input may be overridden: not a constant."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    return value.const_value.numpy()


def numbers(value: ir.Value) -> np.ndarray:
    """The content of an initializer. Whoever works on it later asks again then: a large one is read anew, and not held."""
    assert value.const_value is not None
    return value.const_value.numpy()


def is_read_once(value: ir.Value) -> bool:
    """Whether one operand of one node is all that reads the value."""
    return not value.is_graph_output() and len(value.uses()) == 1


def tensor_dtype(value: ir.Value) -> ir.DataType | None:
    """Element type of a tensor; None for a sequence or an optional, whatever it holds, and where it is unknown."""
    return value.dtype if isinstance(value.type, ir.TensorType | None) else None

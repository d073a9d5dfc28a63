"""Which opset to write a model at: the one at which the target has most of its operators. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from planner.profiles.kernels import operator_version

# QuantizeLinear takes 16-bit types from here on; scales per channel from 13 on.
PREFERRED = 21
_OLDEST = 13
# So far below its own opset a file is brought, where the target has more kernels there.
_LOWEST = 18


def written_opset(
    takes: Callable[[str, int], bool], operators: Collection[str], have: int, wanted: int | None = None
) -> int:
    """The opset at which the target takes the most of the operators; of equals, the preferred one, or the file's above it.

    A runtime may have a kernel for GridSample-16 and none for GridSample-20.

    Args:
        takes: whether the target takes an operator at an opset.
        operators: the ai.onnx operators of the file.
        have: its opset.
        wanted: the one that the target prefers, to the file's too; None: any.
    """
    preferred = wanted or PREFERRED
    candidates: Sequence[int] = range(preferred, max(have, _OLDEST) - 1, -1)
    if have > preferred:
        candidates = (have, preferred) if wanted is None else (preferred, have)
    # Last of equals, since lowering a file changes more of it.
    candidates = [*candidates, *range(min(candidates) - 1, _LOWEST - 1, -1)]

    def lost(opset: int) -> float:
        return sum(_cost(takes, op_type, opset) for op_type in operators)

    return min(candidates, key=lost)


def _cost(takes: Callable[[str, int], bool], op_type: str, opset: int) -> float:
    """0 where the target takes the operator, 1 where it does not.

    Between them where the opset lacks it: its definition by others would take its place.
    """
    if operator_version(op_type, "", opset) is None:
        return 0.5
    return 0 if takes(op_type, opset) else 1

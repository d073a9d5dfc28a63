"""Which opset to write a model at: the one at which the target has most of its operators."""

from __future__ import annotations

from collections.abc import Collection

from planner.profiles.schema import Profile, operator_version
from planner.resolve.legality import takes

# QuantizeLinear takes 16-bit types from here on; scales per channel from 13 on.
PREFERRED = 21
_OLDEST = 13


def written_opset(profile: Profile, device: str, operators: Collection[str], have: int) -> int:
    """The opset at which the device takes the most of the operators; of equals, the preferred one, or the file's above it.

    A runtime may have a kernel for GridSample-16 and none for GridSample-20.

    Args:
        profile: what the target takes.
        device: name from the profile.
        operators: the ai.onnx operators of the file.
        have: its opset.
    """
    above = (have, PREFERRED) if have > PREFERRED else ()
    candidates = above or range(PREFERRED, max(have, _OLDEST) - 1, -1)

    def lost(opset: int) -> float:
        return sum(_cost(profile, device, op, opset) for op in operators)

    return min(candidates, key=lost)


def _cost(profile: Profile, device: str, op_type: str, opset: int) -> float:
    """0 where the device takes the operator, 1 where it does not; between them where the opset lacks it, and its definition
    takes its place."""
    if operator_version(op_type, "", opset) is None:
        return 0.5
    return 0 if takes(profile, device, op_type, opset, or_defined=True) else 1

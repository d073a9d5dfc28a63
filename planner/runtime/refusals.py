"""Reading an EP's verbose log: which nodes it refused, and why, in its own words. Pure text in, values out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """A node that the EP examined and did not take, and its reason."""

    op_type: str
    name: str
    reason: str


# One record of the log: (severity, place in the EP's code, message).
Line = tuple[int, str, str]

_NODE = re.compile(r"Operator type: (?P<op>\S+) Node name: (?P<name>.*?) Node index: \d+")
_REASON = re.compile(r"REASON : (?P<reason>.*)", re.S)
_VALIDATOR = re.compile(
    r"backendValidateOpConfig\(\) failed for node `(?P<name>.*?)` of type `(?P<op>.*?)` with error code (?P<code>\d+)"
)
# What WebGPU says of a node that it left, and onnxruntime of one that it kept back from an EP.
_NO_KERNEL = re.compile(r"kernel not found in registries for Op type: (?P<op>\S+) node name: (?P<name>.*)", re.S)
_KEPT_BACK = re.compile(r"Force fallback to CPU execution for node: (?P<name>.*?) because")
_ERROR = 3
_WHOLE_PARTITION = "does not support a single Quantize/Dequantize node in a partition"


def read_refusals(lines: Iterable[Line]) -> tuple[Refusal, ...]:
    """Parse the telling lines of one session's log.

    A node is examined with its Q/DQ neighbours as one unit; every node of a refused unit gets the unit's reason. What
    the backend's own validator said since the unit before is part of it. The EP asks twice, before and after changing
    the layout; of a node refused both times the last word counts.
    """
    # Nodes without a name are told apart by their operators.
    found: dict[tuple[str, str], Refusal] = {}
    said: list[str] = []
    for severity, where, message in lines:
        if "Validation PASSED" in message:
            said.clear()
        elif "Validation FAILED" in message:
            reason = _REASON.search(message)
            parts = [reason["reason"] if reason else "refused without a reason", *said]
            text = "; ".join(dict.fromkeys(clean(part) for part in parts))
            for node in _NODE.finditer(message):
                found[_key(node["op"], node["name"])] = Refusal(node["op"], node["name"], text)
            said.clear()
        elif none := _NO_KERNEL.search(message):
            text = "it has no kernel for this operator with these types"
            name = none["name"].strip()
            found[_key(none["op"], name)] = Refusal(none["op"], name, text)
        elif kept := _KEPT_BACK.search(message):
            text = "onnxruntime keeps what computes with shapes on the CPU EP"
            found[_key("", kept["name"])] = Refusal("", kept["name"], text)
        elif failed := _VALIDATOR.search(message):
            said.append(f"the backend's validator refused {failed['op']} (error {failed['code']})")
        elif "QnnLogging" in where and severity >= _ERROR:
            said.append(message)
    return tuple(found.values())


def _key(op_type: str, name: str) -> tuple[str, str]:
    return name, "" if name else op_type


def single_node_partition(lines: Iterable[Line]) -> str | None:
    """The EP's own words where it gave up partitions that would have been one lone Q or DQ; None where it did not."""
    return next((clean(message) for _, _, message in lines if _WHOLE_PARTITION in message), None)


def clean(message: str) -> str:
    """An EP's message fit for one line: no status prefix, no folder of this machine, the first three lines only."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", message)
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ", "", text.strip())
    # Only the folders of packages: a node's own name may look like a path too.
    text = re.sub(r"[^\s'\"`]*site-packages[\\/]", "", text)
    kept = [line.strip() for line in text.splitlines() if line.strip()][:3]
    return " ".join(kept)

"""Profiles of a few statements for the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from planner.profiles.load import load_profile
from planner.profiles.schema import Profile

SOURCE = {"observed": "a test"}
Statement = Mapping[str, Any]


def operators(*statements: Statement) -> dict[str, Any]:
    """The `operators` of a profile.

    Args:
        statements: each as a profile writes it, with the operators it speaks of under "op" ("MatMul, Gemm"; MatMul where
            it says nothing) and named r0, r1, ... A refusal is one that says why; its next step is made up where it has none.
    """
    found: dict[str, Any] = {}
    for i, statement in enumerate(statements):
        refuses = "why" in statement
        said = {"id": f"r{i}", **({"do": "do without"} if refuses else {}), **statement}
        operator = found.setdefault(said.pop("op", "MatMul"), {})
        operator.setdefault("refuses" if refuses else "takes", []).append(said)
    return found


def content(*statements: Statement, **other: Any) -> dict[str, Any]:
    """A profile of the EP "acme" with a device "npu" as plain data, with other keys than usual where given."""
    return {
        "schema": "planner/profile/2", "ep": "AcmeExecutionProvider", "title": "Acme", "aliases": ["acme"],
        "default_device": "npu", "prefer": ["w8a8"], "source": SOURCE,
        "devices": {"npu": {"title": "x", "class": "npu", "source": SOURCE}},
        "operators": operators(*statements), **other,
    }  # fmt: skip


def write(folder: Path, *statements: Statement, **other: Any) -> Path:
    """The file of such a profile."""
    path = folder / "acme.yaml"
    path.write_text(json.dumps(content(*statements, **other)), encoding="utf-8")
    return path


def profile(folder: Path, *statements: Statement, **other: Any) -> Profile:
    """Such a profile, loaded."""
    return load_profile(write(folder, *statements, **other))

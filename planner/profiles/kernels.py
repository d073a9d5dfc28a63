"""Kernel tables: what a build of ONNX Runtime has for an EP. A file ships beside the profile, or the installed build is asked.

`kernels: installed` in a profile means the registry of the onnxruntime that is installed, asked once for each build and then
remembered. The snapshot that ships serves where it was made of that very build, and, with a note, where none is installed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from msgspec import Struct

from planner import codec
from planner.codec import MalformedError
from planner.errors import EPError, RequestError, first_line
from planner.files import read_text, write_text
from planner.profiles.shipped import KERNELS, folder_of
from planner.runtime import kernel_registry
from planner.runtime.environment import cache_folder
from planner.runtime.registry import launcher

INSTALLED = "installed"
Table = dict[str, Any]


@functools.cache
def operator_version(op_type: str, domain: str, opset: int) -> int | None:
    """The opset at which ONNX last changed the operator, up to this one; None if ONNX does not define it there."""
    if domain:
        return None
    try:
        return int(onnx.defs.get_schema(op_type, opset, domain).since_version)
    except onnx.defs.SchemaError:
        return None


@dataclass(frozen=True)
class Kernel:
    """One kernel of a table: the opsets it serves and the element types of each type constraint."""

    first_opset: int
    last_opset: int | None
    types: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class KernelTable:
    """The kernels that a build of ONNX Runtime has for an EP.

    Attributes:
        source: where the table comes from, for reasons.
        kernels: (domain, operator) to its kernels.
    """

    source: str
    kernels: Mapping[tuple[str, str], Sequence[Kernel]]

    def types(self, op_type: str, domain: str, opset: int) -> Mapping[str, frozenset[str]] | None:
        """Element types by type constraint, over all kernels that serve the operator at this opset; None if none does.

        As ONNX Runtime matches them (kernel_registry.cc): a kernel with a closed range of opsets serves each of them,
        an open one only the version of the operator that it starts with, since a later version may mean another thing.

        Args:
            op_type: the operator.
            domain: its domain; "" is ai.onnx.
            opset: of the model; the operator's own version at that opset is what counts.
        """
        version = operator_version(op_type, domain, opset)
        types: dict[str, frozenset[str]] = {}
        found = False
        for kernel in self.kernels.get((domain, op_type), ()):
            if version is None:
                serves = True
            elif kernel.last_opset is None:
                serves = kernel.first_opset == version
            else:
                serves = kernel.first_opset <= version <= kernel.last_opset
            if serves:
                found = True
                for name, dtypes in kernel.types.items():
                    types[name] = types.get(name, frozenset()) | dtypes
        return types if found else None


def read_kernel_table(path: Path, content: str) -> KernelTable:
    """A kernel table file: {"source": text, "kernels": {domain: {operator: [{"opset": "13+", "types": {"T": [..]}}]}}}.

    Opsets are written "13" (that one alone), "11-12" or "13+" (from 13 on), element types as in ONNX Runtime's kernel
    documentation ("float", "float16", "int8").
    """
    try:
        data = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not a kernel table: {first_line(error)}") from None
    file = codec.from_json(_File, data, f"{path}: not a kernel table")
    kernels = {}
    for domain, operators in file.kernels.items():
        for op, entries in operators.items():
            try:
                kernels["" if domain == "ai.onnx" else domain, op] = tuple(map(_kernel, entries))
            except ValueError as error:
                raise MalformedError(
                    ("kernels", domain, op), str(error), source=f"{path}: not a kernel table"
                ) from None
    return KernelTable(file.source, kernels)


_TYPE_NAMES = {"float": "float32", "double": "float64"}


def _kernel(entry: _Entry) -> Kernel:
    form = re.fullmatch(r"(\d+)(\+|-(\d+))?", entry.opset, re.ASCII)
    if form is None:
        raise ValueError(f"expected an opset such as 13, 11-12 or 13+, not {entry.opset[:40]!r}")
    first = int(form[1])
    last = None if form[2] == "+" else int(form[3] or first)
    return Kernel(first, last, {c: frozenset(_TYPE_NAMES.get(t, t) for t in names) for c, names in entry.types.items()})


class _Entry(Struct):
    """A kernel as a file writes it."""

    opset: str
    types: dict[str, list[str]]


class _File(Struct):
    """A kernel table as it is written."""

    source: str
    kernels: dict[str, dict[str, list[_Entry]]]


# -- the installed build ------------------------------------------------------------------------------------------------


def installed(ep: str) -> Table:
    """The registry of the installed build, as a file holds it.

    Raises:
        EPError: onnxruntime is missing or has no such registry.
    """
    available = launcher(ep).availability()
    if not available.runs:
        raise EPError(f"{ep} can't run here: {available.reason}", "see `planner eps`")
    try:
        done = subprocess.run(
            [str(available.python), kernel_registry.__file__, ep],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        table: Table = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise EPError(
            f"{ep}: its kernel registry cannot be read ({type(error).__name__})", "see `planner eps`"
        ) from None
    return table


def installed_kernels(ep: str, snapshot: str | None) -> tuple[str, str]:
    """(kernel table as JSON text, note): the registry of the installed build for the EP.

    Args:
        ep: full provider name.
        snapshot: text of the shipped table; None if there is none for this EP.

    Raises:
        RequestError: nothing is installed and there is no snapshot.
    """
    available = launcher(ep).availability()
    build = next((f"{name} {version}" for name, version in available.packages.items()), None)
    if build is not None and snapshot is not None and _made_of(snapshot, build):
        return snapshot, ""
    if available.kind is None or build is None:
        return _fallback(ep, snapshot, available.reason)
    name = f"{ep}-{re.sub(r'[^A-Za-z0-9.]+', '-', build)}-{kernel_registry.this_platform()}.json"
    remembered = cache_folder() / "kernels" / name
    with contextlib.suppress(OSError, ValueError):
        text = remembered.read_text(encoding="utf-8")
        json.loads(text)
        return text, ""
    try:
        text = dump(installed(ep))
    except EPError as error:
        return _fallback(ep, snapshot, str(error))
    # A folder that cannot be written costs the next start some time, nothing else.
    with contextlib.suppress(OSError, RequestError):
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_text(remembered, text)
    return text, ""


def _made_of(snapshot: str, build: str) -> bool:
    """Whether the snapshot was made of this build. Builds of one version differ by platform: ARM has other float16 kernels."""
    with contextlib.suppress(ValueError, AttributeError):
        table = json.loads(snapshot)
        return bool(
            table.get("package") == build and table.get("platform", "linux-x86_64") == kernel_registry.this_platform()
        )
    return False


def _fallback(ep: str, snapshot: str | None, reason: str) -> tuple[str, str]:
    if snapshot is None:
        raise RequestError(
            f"{ep}: its profile asks for the kernels of the installed build, and there is none: {reason}"
        )
    with contextlib.suppress(ValueError, AttributeError):
        package = json.loads(snapshot).get("package", "an unnamed build")
        return snapshot, f"judged by the kernels of {package}, since the installed build cannot be asked: {reason}"
    return snapshot, ""


# -- comparing two ------------------------------------------------------------------------------------------------------


def stored(ep: str) -> Path:
    """The shipped snapshot of the EP's registry."""
    return folder_of(ep) / KERNELS


def read(path: Path) -> Table:
    """A kernel table file as plain data.

    Raises:
        RequestError: it is missing or no kernel table.
    """
    try:
        text = read_text(path)
    except RequestError as error:
        raise RequestError(str(error), "make one with `planner probe -o FILE`") from None
    read_kernel_table(path, text)  # for its checks
    table: Table = json.loads(text)
    return table


def dump(table: Mapping[str, Any]) -> str:
    """The file's text, a line an operator."""
    domains = []
    for domain, operators in sorted(table["kernels"].items()):
        rows = [f"   {json.dumps(op)}: {json.dumps(entries)}" for op, entries in sorted(operators.items())]
        domains.append(f"  {json.dumps(domain)}: {{\n" + ",\n".join(rows) + "\n  }")
    head = [f" {json.dumps(k)}: {json.dumps(v)}" for k, v in table.items() if k != "kernels"]
    return "{\n" + ",\n".join(head) + ',\n "kernels": {\n' + ",\n".join(domains) + "\n }\n}\n"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str | None, str | None]]:
    """Kernels that differ, as ("ai.onnx Conv 11-21", types before, types after); None where there is no such kernel."""
    old, new = _flat(before), _flat(after)
    return [(k, old.get(k), new.get(k)) for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]


def _flat(table: Mapping[str, Any]) -> dict[str, str]:
    return {
        f"{domain} {op} {entry['opset']}": "; ".join(
            f"{c}: {' '.join(types)}" for c, types in sorted(entry["types"].items())
        )
        for domain, operators in table["kernels"].items()
        for op, entries in operators.items()
        for entry in entries
    }

"""The kernel registry of an installed onnxruntime, as the kernel tables beside the profiles hold it.

Run as a script (`python kernels.py EP`) it prints the registry of the onnxruntime beside that interpreter, so it imports
nothing of planner; the EP may live in an environment of its own.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Table = dict[str, Any]


def this_platform() -> str:
    """System and processor, as snapshots name them: builds of one version have other kernels on other processors."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{sys.platform}-{machine}"


def installed(ep: str) -> Table:
    """The registry of the installed build.

    Raises:
        EPError: onnxruntime is missing or has no such registry.
    """
    from planner.errors import EPError
    from planner.runtime.registry import launcher

    available = launcher(ep).availability()
    if not available.runs:
        raise EPError(f"{ep} can't run here: {available.reason}", "see `planner eps`")
    try:
        done = subprocess.run(
            [str(available.python), __file__, ep],
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


def stored(ep: str) -> Path:
    """The shipped snapshot of the EP's registry."""
    from planner.profiles.load import shipped_directory

    return shipped_directory() / f"{ep}.kernels.json"


def read(path: Path) -> Table:
    """A kernel table file as plain data.

    Raises:
        RequestError: it is missing or no kernel table.
    """
    from planner.errors import RequestError
    from planner.files import read_text
    from planner.profiles.load import read_kernel_table

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


def _registry(ep: str) -> Table:
    """The registry of the onnxruntime that this interpreter has."""
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    found: dict[str, dict[str, dict[tuple[int, str], dict[str, set[str]]]]] = {}
    for kernel in get_all_opkernel_def():
        if kernel.provider != ep:
            continue
        first, last = kernel.version_range
        opset = f"{first}+" if last >= 2**31 - 1 else str(first) if first == last else f"{first}-{last}"
        operators = found.setdefault(kernel.domain or "ai.onnx", {})
        types = operators.setdefault(kernel.op_name, {}).setdefault((first, opset), {})
        for constraint, names in kernel.type_constraints.items():
            types.setdefault(constraint, set()).update(n.removeprefix("tensor(").removesuffix(")") for n in names)
    version = onnxruntime.__version__
    return {
        "source": f"kernel registry of onnxruntime {version} (get_all_opkernel_def)",
        "package": f"onnxruntime {version}",
        "platform": this_platform(),
        "kernels": {
            domain: {
                op: [
                    {"opset": opset, "types": {c: sorted(t) for c, t in sorted(types.items())}}
                    for (_, opset), types in sorted(entries.items(), reverse=True)
                ]
                for op, entries in operators.items()
            }
            for domain, operators in found.items()
        },
    }


if __name__ == "__main__":
    # The folder of this file must not lend its module names (`cases`, `run`) to anybody's import.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
    print(json.dumps(_registry(sys.argv[1])))

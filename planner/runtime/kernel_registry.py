"""The kernel registry of an onnxruntime, as the kernel tables beside the profiles hold it.

Run as a script (`python kernel_registry.py EP`) it prints the registry of the onnxruntime beside that interpreter, which may
be another one than planner's: it imports nothing of planner.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any


def this_platform() -> str:
    """System and processor, as snapshots name them: builds of one version have other kernels on other processors."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{sys.platform}-{machine}"


def registry(ep: str) -> dict[str, Any]:
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
    # The folder of this file must not lend its module names to anybody's import.
    sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
    print(json.dumps(registry(sys.argv[1])))

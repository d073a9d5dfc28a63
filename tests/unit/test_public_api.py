"""The public surface of the package: what `import planner` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import planner


@pytest.mark.parametrize("name", [n for n in planner.__all__ if n not in ("limited", "load_profile")])
def test_every_public_function_can_be_called_before_and_after_its_package_was_imported(name: str) -> None:
    called = f"import planner\ntry:\n    planner.{name}()\nexcept TypeError as error:\n    print(error)\n"
    for first in ("", "import planner.reporting, planner.verification.floor, planner.quantization.walk\n"):
        done = subprocess.run([sys.executable, "-c", first + called], capture_output=True, text=True, check=True)
        # The function's own complaint about missing arguments: it was reached.
        assert f"{name}() missing" in done.stdout, done
    assert callable(getattr(planner, name))


def test_importing_planner_loads_nothing_heavy() -> None:
    code = (
        "import sys, planner; print([m for m in ('numpy', 'onnx', 'onnxruntime', 'yaml', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        planner.nothing  # noqa: B018

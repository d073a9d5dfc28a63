"""What the processor can, read from its own description."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from planner.dtypes import DType, parse_precision, precision_by_name
from planner.quantization.walk import apply_plan
from planner.resolve.choose import check_model, make_plan
from planner.resolve.target import Target
from planner.runtime.processor import has_vnni, traits
from tests.unit.small_models import graph, run, save


@pytest.mark.parametrize(
    ("flags", "expected"), [("fpu avx2 avx512_vnni", True), ("fpu avx2 avx_vnni", True), ("fpu avx2 avx512f", False)]
)
def test_vnni_is_a_flag(flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert has_vnni(info) is expected


def test_what_cannot_be_read_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert has_vnni(tmp_path / "missing") is None
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert has_vnni() is None


def test_a_trait_tells_of_sums_that_saturate() -> None:
    assert traits(False) == ("no-vnni",) and traits(True) == traits(None) == ()


@pytest.fixture
def product(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    return save(graph("(float[4,64] x) => (float[4,32] y)", "y = MatMul(x, w)", {"w": weight}), tmp_path)


@pytest.mark.parametrize("precision", ["w8a8", "w8a8-dynamic"])
@pytest.mark.parametrize(("vnni", "kind"), [(True, "int8"), (None, "int8"), (False, "uint8")])
def test_weights_are_unsigned_where_sums_would_saturate(
    precision: str, vnni: bool | None, kind: str, product: Path
) -> None:
    target = Target.open("cpu", processor=traits(vnni))
    model = target.read(product)
    line = make_plan(target, model, check_model(target, model, parse_precision(precision))).nodes[0]
    assert (line.weight, line.activation, line.config.per_channel) == (kind, "uint8", True)


def test_signed_weights_that_were_asked_for_by_name_are_refused_there(product: Path) -> None:
    asked = precision_by_name(DType.INT8, DType.UINT8)
    target = Target.open("cpu", processor=())
    model = target.read(product)
    assert check_model(target, model, asked).legal
    found = check_model(Target.open("cpu", processor=traits(False)), model, asked)
    assert found.legal is False and "saturate" in (found.violations[0].ruling.reason or "")


def test_other_devices_do_not_ask_the_processor() -> None:
    assert Target.open("qnn", processor=traits(False)) == Target.open("qnn", processor=())


def test_unsigned_weights_give_the_same_numbers(product: Path) -> None:
    made = []
    for vnni in (True, False):
        target = Target.open("cpu", processor=traits(vnni))
        model = target.read(product)
        plan = make_plan(target, model, check_model(target, model, parse_precision("w8a8-dynamic")))
        made.append(ir.to_proto(apply_plan(model, plan, {}).model))
    x = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    one, other = (run(m, {"x": x})[0] for m in made)
    assert np.array_equal(one, other)

"""What the processor can, asked of itself; and plans, which are right on either kind."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

import planner
from planner.dtypes import DType, parse_precision, precision_by_name
from planner.errors import RequestError
from planner.quantization.walk import apply_plan
from planner.reporting.matrix import open_targets
from planner.resolve.choose import check_model, make_plan
from planner.resolve.plan import Plan
from planner.resolve.target import Target
from planner.runtime import processor
from reports import samples
from tests.unit.small_models import Array, graph, run, save, sqnr

# Every product is 255 times 127 (the other way round in ConvInteger), and two of them are beyond 16 bits.
_DEPTH = 64
_SUM = _DEPTH * 255 * 127
_UNSIGNED, _SIGNED = np.full((4, _DEPTH), 255, np.uint8), np.full((_DEPTH, 16), 127, np.int8)
_PICTURE, _KERNEL = np.full((1, 16, 4, 4), 255, np.uint8), np.full((8, 16, 2, 2), 127, np.int8)
_ONE, _NONE = np.float32(1), np.uint8(0)
_STEP = np.float32(_SUM / 100)
_LINEAR = {"one": _ONE, "none": _NONE, "zero": np.int8(0), "step": _STEP}

# name: (input, signature, body, weight, what every number of the output must be)
SATURATING: dict[str, tuple[Array, str, str, Array, float]] = {
    "MatMulInteger": (_UNSIGNED, "uint8[4,64] x) => (int32[4,16] y)", "y = MatMulInteger(x, w)", _SIGNED, _SUM),
    "ConvInteger": (
        np.full(_PICTURE.shape, 127, np.int8), "int8[1,16,4,4] x) => (int32[1,8,3,3] y)", "y = ConvInteger(x, w)",
        np.full(_KERNEL.shape, 255, np.uint8), _SUM,
    ),
    "QLinearMatMul": (
        _UNSIGNED, "uint8[4,64] x) => (uint8[4,16] y)",
        "y = QLinearMatMul(x, one, none, w, one, zero, step, none)", _SIGNED, 100,
    ),
    "QLinearConv": (
        _PICTURE, "uint8[1,16,4,4] x) => (uint8[1,8,3,3] y)",
        "y = QLinearConv(x, one, none, w, one, zero, step, none)", _KERNEL, 100,
    ),
    "MatMulIntegerToFloat": (
        _UNSIGNED, "uint8[4,64] x) => (float[4,16] y)",
        "y = com.microsoft.MatMulIntegerToFloat(x, w, one, one, none, zero)", _SIGNED, _SUM,
    ),
    "DynamicQuantizeMatMul": (
        _UNSIGNED.astype(np.float32), "float[4,64] x) => (float[4,16] y)",
        "y = com.microsoft.DynamicQuantizeMatMul(x, w, one, zero)", _SIGNED, _SUM,
    ),
}  # fmt: skip


def stored(operator: str) -> tuple[onnx.ModelProto, Array, float]:
    x, signature, body, weight, expected = SATURATING[operator]
    constants: dict[str, object] = {"w": weight} | {name: value for name, value in _LINEAR.items() if name in body}
    domains = ["com.microsoft"] if "com.microsoft" in body else []
    return graph(f"({signature}", body, constants, domains=domains, check=not domains), x, expected


def refused(proto: onnx.ModelProto, folder: Path) -> bool:
    target = Target.open("cpu")
    found = check_model(target, target.read(save(proto, folder), stored=True), None, stored=True)
    assert found.legal is not None
    assert all("saturate" in (v.ruling.reason or "") for v in found.violations)
    return not found.legal


@pytest.mark.processor
@pytest.mark.parametrize("operator", SATURATING)
def test_an_operator_is_refused_exactly_where_this_processor_saturates(operator: str, tmp_path: Path) -> None:
    proto, x, expected = stored(operator)
    exact = bool(np.all(np.abs(run(proto, {"x": x})[0] - expected) <= abs(expected) * 1e-6))
    assert refused(proto, tmp_path) is not exact


@pytest.mark.parametrize("operator", SATURATING)
def test_an_operator_is_refused_on_the_kind_of_processor_that_saturates(
    operator: str, processor_traits: tuple[str, ...], tmp_path: Path
) -> None:
    assert refused(stored(operator)[0], tmp_path) is (processor_traits == ("no-vnni",))


def test_a_processor_that_is_no_x86_has_no_traits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    processor.has_vnni.cache_clear()
    try:
        assert processor.has_vnni() is None and processor.traits() == ()
    finally:
        processor.has_vnni.cache_clear()


def test_a_processor_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANNER_PROCESSOR", "")
    assert processor.traits() == ()
    monkeypatch.setenv("PLANNER_PROCESSOR", "no-vnni")
    assert processor.traits() == ("no-vnni",)
    monkeypatch.setenv("PLANNER_PROCESSOR", "no-such")
    with pytest.raises(RequestError, match="unknown trait 'no-such'"):
        Target.open("cpu")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    return save(graph("(float[4,64] x) => (float[4,32] y)", "y = MatMul(x, w)", {"w": weight}), tmp_path)


def plan(path: Path, precision: str) -> Plan:
    target = Target.open("cpu")
    model = target.read(path)
    return make_plan(target, model, check_model(target, model, parse_precision(precision)))


@pytest.mark.parametrize("precision", ["w8a8", "w8a8-dynamic"])
def test_weights_are_unsigned_where_sums_would_saturate(
    precision: str, processor_traits: tuple[str, ...], product: Path
) -> None:
    (line,) = plan(product, precision).nodes
    kind = "uint8" if processor_traits else "int8"
    assert (line.weight, line.activation, line.config.per_channel) == (kind, "uint8", True)


def test_signed_weights_that_were_asked_for_by_name_are_refused_there(
    processor_traits: tuple[str, ...], product: Path
) -> None:
    target = Target.open("cpu")
    found = check_model(target, target.read(product), precision_by_name(DType.INT8, DType.UINT8))
    assert found.legal is not bool(processor_traits)
    assert all("saturate" in (v.ruling.reason or "") for v in found.violations)


def test_every_entry_asks_for_the_processor(processor_traits: tuple[str, ...], product: Path, tmp_path: Path) -> None:
    kind = "uint8" if processor_traits else "int8"
    assert planner.plan(product, "cpu", precision="w8a8").nodes[0].weight == kind
    assert planner.check(product, "cpu", precision="w8a8").verdicts[0].config.weight == kind
    outcome = planner.target(product, "cpu", tmp_path / "out.onnx", precision="w8a8-dynamic")
    assert outcome.kept is not None and outcome.kept.plan.nodes[0].weight == kind
    (cpu,) = open_targets(["cpu"])
    assert tuple(cpu.profile.device("cpu").traits) == processor_traits


@pytest.mark.parametrize(
    ("body", "shape", "there"),
    [("MatMul(x, w)", (64, 32), ("uint8", "uint8")), ("ConvTranspose(x, w)", (64, 8, 3, 3), ("int8", "int8"))],
)
def test_openvino_multiplies_as_the_processor_lets_it(
    body: str, shape: tuple[int, ...], there: tuple[str, str], processor_traits: tuple[str, ...], tmp_path: Path
) -> None:
    """It saturates like the CPU EP; and of a ConvTranspose with uint8 weights it leaves the zero point out."""
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    taken, given = ("4,64", "4,32") if len(shape) == 2 else ("1,64,8,8", "1,8,10,10")
    path = save(graph(f"(float[{taken}] x) => (float[{given}] y)", f"y = {body}", {"w": weight}), tmp_path)
    line = planner.plan(path, "openvino", precision="w8a8").nodes[0]
    assert (line.weight, line.activation) == (there if processor_traits else ("int8", "uint8"))


def test_other_devices_do_not_ask_the_processor(processor_traits: tuple[str, ...]) -> None:
    target = Target.open("qnn")
    assert not set(target.profile.device(target.device).traits) & {"no-vnni"}


def test_the_plan_of_either_kind_gives_the_same_numbers(product: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the reference evaluator of onnx, which computes as the file says."""
    target = Target.open("cpu")
    x = np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    found = []
    for kind in ("", "no-vnni"):
        monkeypatch.setenv("PLANNER_PROCESSOR", kind)
        made = apply_plan(target.read(product), plan(product, "w8a8-dynamic"), {}).model
        found.append(ReferenceEvaluator(ir.to_proto(made)).run(None, {"x": x})[0])
    assert np.array_equal(*found)


@pytest.mark.processor
@pytest.mark.parametrize("precision", ["w8a8", "w8a8-dynamic"])
def test_what_is_made_here_is_as_faithful_here_as_the_file_says(
    precision: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1 dB of exact sums, which are those of a processor with VNNI: of a trained model on real pictures."""
    monkeypatch.chdir(Path(__file__).parents[3])
    made = tmp_path / "out.onnx"
    assert planner.target(digits, "cpu", made, precision=precision, inputs="reports.samples:digits").kept is not None
    as_written = ReferenceEvaluator(onnx.load(made))
    float32, exact, here = [], [], []
    for sample in samples.digits():
        float32.append(run(digits, sample)[0])
        exact.append(as_written.run(None, sample)[0])
        here.append(run(made, sample, optimize=True)[0])
    assert sqnr(np.array(float32), np.array(here)) > sqnr(np.array(float32), np.array(exact)) - 1

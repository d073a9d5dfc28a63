"""Reports that the report tests share. They are made up: no number here was measured."""

from __future__ import annotations

import math
from dataclasses import replace

from planner.reporting import Inputs, Model, Range, Report, Row
from planner.resolve.plan import TargetIdentity
from planner.resolve.verdicts import NodeVerdict, Violation
from planner.verification.divergence import Divergence, TensorDivergence
from planner.verification.fidelity import Fidelity
from planner.verification.placement import Fallback, Placement
from planner.verification.verify import Seconds, Verification

# What a model file may hold as a name, and no report may be broken by.
HOSTILE = (
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    "<!--<script>",
    "\"'><svg onload=window.pwned=1>",
    "a|b`c`\r\nd\n# e",
    "nul\x00bell\x07esc\x1b[31m\x85",
    "\u202egnp.exe\u202c\u2066",
    "\udcff\ufffe",
    "😀 ünïcødé & ]]> &amp; &lt;",
    "{{ 7*7 }}{% raw %}",
    "[x](javascript:alert(1)) @someone https://example.org",
    "",
)

QNN = TargetIdentity("QNNExecutionProvider", "snapdragon-x-elite")
DML = TargetIdentity("DmlExecutionProvider", "gpu")
CPU = TargetIdentity("CPUExecutionProvider", "cpu")
OPS = ("Conv", "Relu", "Conv", "Add", "Relu", "MatMul", "Softmax", "Resize", "Sigmoid", "Mul")


def model(name: str = "text-detector", nodes: int = 120) -> Model:
    return Model(f"models/{name}.onnx", "3f" * 32, 17, nodes, name=name)


def nodes(
    count: int, weight: str = "uint8", activation: str = "uint16", off: tuple[int, ...] = ()
) -> tuple[NodeVerdict, ...]:
    made = []
    for i in range(count):
        op = OPS[i % len(OPS)]
        has_weight = op in ("Conv", "MatMul")
        w, a = (weight if has_weight else None), activation
        if op == "Softmax":
            w, a = None, "float16"
        on = i not in off
        reason = None if on else f"{op} output shape must be static"
        made.append(
            NodeVerdict(f"/backbone/block{i // 10}/{op.lower()}_{i}", op, w, a, on, f"qnn.{op.lower()}", reason)
        )
    return tuple(made)


def depth(planned: tuple[NodeVerdict, ...], start: float = 62.0) -> Divergence:
    return Divergence(
        tuple(
            tensor(n, start - 30 * i / len(planned) + 5 * math.sin(i) - (12 if i == 70 else 0))
            for i, n in enumerate(planned)
        ),
        None,
        QNN.ep,
    )


def tensor(node: NodeVerdict, sqnr_db: float) -> TensorDivergence:
    return TensorDivergence(f"{node.name}_out", node.name, node.op_type, 1, sqnr_db, 0.0, (-1.0, 1.0), True)


def ranges(count: int) -> tuple[Range, ...]:
    made = []
    for i in range(count):
        low, high = (-2.0 - i, 3.0 + i * i) if i % 3 else (0.0, 6.0 + i)
        bins = tuple(int(4000 * math.exp(-(((b - 8 - i % 7) / (2 + i % 5)) ** 2))) for b in range(32))
        made.append(Range(f"/backbone/block{i}/relu_output_0", low, high, bins if i % 5 != 4 else None))
    return tuple(made)


def run(
    ran_on: str,
    kind: str,
    sqnr: float,
    total: int,
    fallback: tuple[Fallback, ...] = (),
    divergence: Divergence | None = None,
) -> Verification:
    return Verification(
        ran_on,
        kind,  # type: ignore[arg-type]
        {"onnxruntime": "1.32.0"} | ({"onnxruntime-qnn": "2.7.0"} if "QNN" in ran_on else {}),
        Placement(total, total - len(fallback) if kind != "emulation" else None, fallback),
        (Fidelity("boxes", sqnr, 0.9991, 0.031, None), Fidelity("scores", sqnr + 6.2, 0.9998, 0.004, 0.984)),
        seconds=Seconds(0.42, 1.31),
        peak_rss_mb=512.0,
        divergence=divergence,
    )


def passed(
    name: str = "text-detector", target: TargetIdentity = QNN, precision: str = "auto", chosen: str = "w8a16"
) -> Row:
    planned = nodes(120)
    return Row(
        model(name),
        target,
        precision,
        "passed",
        chosen,
        legal=True,
        placed=True,
        faithful=True,
        tier="simulated",
        kind="simulator",
        recommended=True,
        floor_db=20.0,
        size_bytes=4_812_331,
        latency_ms=1310.0,
        inputs=Inputs("calibration.npz", 64, False),
        verification=run(target.ep, "simulator", 31.4, 120, divergence=depth(planned)),
        nodes=planned,
        ranges=ranges(14),
    )


def illegal(name: str = "text-detector", target: TargetIdentity = QNN, precision: str = "w16a16") -> Row:
    planned = tuple(replace(n, on_target=not n.weight) for n in nodes(120, "int16", "int16"))
    violations = tuple(
        Violation(
            n.name,
            n.op_type,
            n.weight,
            n.activation,
            "qnn.conv.pairs",
            f"{n.op_type} takes no int16 weight with an int16 activation on this device",
            "use w8a16: uint8 or int8 weights go with 16-bit activations",
        )
        for n in planned
        if n.weight
    )
    return Row(
        model(name),
        target,
        precision,
        "illegal",
        precision,
        "36 of 120 nodes ask for a pair that the device does not have",
        legal=False,
        nodes=planned,
        violations=violations,
    )


def failed(name: str = "text-detector", target: TargetIdentity = QNN, precision: str = "w8a8") -> Row:
    planned = nodes(120, "int8", "uint8", off=(61, 62, 63, 97))
    fallback = tuple(Fallback(n.name, n.op_type, n.reason) for n in planned if not n.on_target)
    return Row(
        model(name),
        target,
        precision,
        "failed",
        precision,
        "4 nodes fall back to the CPU, and boxes has 11.2 dB where 20 dB are asked for",
        (
            "keep /backbone/block7 at 16 bits: --precision auto does so",
            "give static shapes: --shape images=1x3x640x640",
        ),
        legal=True,
        placed=False,
        faithful=False,
        tier="simulated",
        kind="simulator",
        floor_db=20.0,
        size_bytes=2_612_331,
        inputs=Inputs("synthetic", 16, True),
        verification=run(target.ep, "simulator", 11.2, 120, fallback, depth(planned, 36.0)),
        nodes=planned,
    )


def emulated(name: str = "text-detector", target: TargetIdentity = DML) -> Row:
    planned = tuple(replace(n, weight=n.weight and "float16", activation="float16", on_target=None) for n in nodes(120))
    return Row(
        model(name), target, "auto", "passed", "fp16", legal=True, faithful=True, tier="emulated", kind="emulation",
        recommended=True, floor_db=20.0, size_bytes=9_400_122, inputs=Inputs("calibration.npz", 64, False),
        verification=run("CPUExecutionProvider", "emulation", 58.9, 120), nodes=planned,
        suggestions=("run on Windows with DirectML for a measured verdict",),
    )  # fmt: skip


def measured(name: str = "text-detector", target: TargetIdentity = CPU) -> Row:
    return replace(
        passed(name, target, "auto", "w8a8"),
        tier="measured",
        kind="hardware",
        latency_ms=8.73,
        verification=run(target.ep, "hardware", 44.0, 120),
        nodes=nodes(120, "int8", "uint8"),
        ranges=(),
    )


def bare(status: str, reason: str, name: str, target: TargetIdentity, *suggestions: str) -> Row:
    return Row(model(name), target, "auto", status, None, reason, suggestions)  # type: ignore[arg-type]


def full() -> Report:
    """Three models on three targets, with every status and every tier of evidence."""
    return Report(
        "0.1.0",
        "2026-11-24T12:00:00Z",
        (
            passed(),
            illegal(),
            failed(),
            emulated(),
            measured(),
            failed("text-recognizer"),
            bare(
                "unknown",
                "no evidence for Einsum on this device",
                "text-recognizer",
                DML,
                "add a rule, or --allow-unknown",
            ),
            measured("text-recognizer"),
            bare(
                "error",
                "the worker died: signal 11 while the session was made",
                "file-type",
                QNN,
                "planner verify --verbose",
            ),
            bare(
                "skipped", "onnxruntime-directml is not installed", "file-type", DML, "pip install 'planner[directml]'"
            ),
            illegal("file-type", CPU),
        ),
    )


def large(count: int = 10_000) -> Report:
    planned = nodes(count, off=(4321,))
    verification = run(QNN.ep, "simulator", 31.4, 120, divergence=depth(planned))
    row = replace(passed(), nodes=planned, verification=verification, model=model("large", count))
    return Report("0.1.0", "2026-11-24", (row,))


def hostile() -> Report:
    """HOSTILE in every place that takes a name or a sentence."""
    made = []
    for i, bad in enumerate(HOSTILE):
        name = f"{bad}{i}"
        planned = (
            NodeVerdict(bad, bad, bad, bad, False, bad, bad),
            NodeVerdict(f"{bad}'", "Add", None, None, None, None, None),
        )
        violation = Violation(bad, bad, bad, bad, bad, bad, bad)
        verification = Verification(
            bad, "emulation", {bad: bad}, Placement(2, 1, (Fallback(bad, bad, bad),)),
            (Fidelity(bad, 3.0), Fidelity(f"{bad}2", 4.0)),
            divergence=Divergence((TensorDivergence(bad, bad, bad, 1, 4.0, 0.0, None, True),), None, bad),
        )  # fmt: skip
        made.append(
            Row(
                model=Model(f"/{bad}/{i}.onnx", bad, 17, 2, name=name),
                target=TargetIdentity(f"{bad}EP", bad, {bad: bad}),
                precision=bad,
                status="failed",
                chosen=f"{bad}!",
                reason=bad,
                suggestions=(bad,),
                faithful=False,
                tier="emulated",
                kind="emulation",
                floor_db=20.0,
                size_bytes=5,
                inputs=Inputs(bad, 1, True),
                verification=verification,
                nodes=planned,
                violations=(violation,),
                ranges=(Range(bad, -1.0, 1.0, (1, 2)),),
            )
        )
    return Report(HOSTILE[0], HOSTILE[1], tuple(made))


def wide(models: int = 1_000, targets: int = 12) -> Report:
    """A sweep: so many models on so many targets at three precisions, without nodes."""
    places = [TargetIdentity(f"Ep{i}ExecutionProvider", "npu", {}) for i in range(targets)]
    rows = []
    for m in range(models):
        for t, place in enumerate(places):
            for precision, row in zip(("w8a8", "w8a16", "fp16"), (illegal(), failed(), passed()), strict=True):
                chosen = illegal() if (m + t) % 3 == 0 else row
                rows.append(
                    replace(
                        chosen, nodes=(), ranges=(), verification=None, kind=None, tier="declared", model=model(f"model-{m:04}", 9), target=place, precision=precision,
                        violations=chosen.violations[:2], recommended=False,
                    )
                )  # fmt: skip
    return Report("0.1.0", "2026-11-24", tuple(rows))

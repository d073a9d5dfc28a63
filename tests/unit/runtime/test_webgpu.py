"""WebGPU: its GPU is chosen, its log is read as a placement. Nothing runs here."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from planner.runtime.eps import witness
from planner.runtime.eps.launcher import Availability
from planner.runtime.eps.log import WHERE, Placed, read_named
from planner.runtime.eps.webgpu import LAUNCHER, vulkan
from planner.runtime.refusals import read_refusals
from tests.unit.runtime.test_registry import environment

WEBGPU, CPU = "WebGpuExecutionProvider", "CPUExecutionProvider"
LAVAPIPE = vulkan.Gpu("llvmpipe", "Mesa 25.0.7", True, True, True, "libvulkan.so.1")
SWIFTSHADER = vulkan.Gpu("SwiftShader driver", "5.0.0", True, False, True, "libvulkan.so.1", "/swiftshader.json")
REAL = vulkan.Gpu("NVIDIA", "560.1", False, True, True, "libvulkan.so.1")


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[vulkan.Gpu]]:
    """What drivers offer, by manifest; "" is what the loader finds by itself."""
    gpus: dict[str, list[vulkan.Gpu]] = {}
    for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(vulkan, "_asked", lambda _python, manifest: gpus.get(manifest, []))
    monkeypatch.setattr(vulkan, "_SWIFTSHADER", (__file__,))
    vulkan._find.cache_clear()
    return gpus


def test_a_real_gpu_comes_before_one_in_software(offered: dict[str, list[vulkan.Gpu]]) -> None:
    offered[""] = [LAVAPIPE, REAL]
    assert vulkan.find(Path("python")) == REAL


def test_the_browser_s_software_gpu_is_taken_where_the_system_has_none_that_webgpu_can_use(
    offered: dict[str, list[vulkan.Gpu]],
) -> None:
    offered.update({"": [replace(LAVAPIPE, usable=False)], __file__: [SWIFTSHADER]})
    assert vulkan.find(Path("python")) == SWIFTSHADER


def test_where_the_user_names_the_driver_no_other_is_looked_for(
    offered: dict[str, list[vulkan.Gpu]], monkeypatch: pytest.MonkeyPatch
) -> None:
    offered[__file__] = [SWIFTSHADER]
    monkeypatch.setenv("VK_ICD_FILENAMES", "/elsewhere.json")
    assert vulkan.find(Path("python")) is None


@pytest.mark.parametrize(
    ("gpu", "kind", "runs", "runs_float16"),
    [
        (REAL, "hardware", True, True),
        (LAVAPIPE, "software", True, True),
        (SWIFTSHADER, "software", True, False),
        (None, None, False, False),
    ],
)
def test_the_gpu_says_what_a_run_here_is(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    gpu: vulkan.Gpu | None,
    kind: str | None,
    runs: bool,
    runs_float16: bool,
) -> None:
    monkeypatch.setenv("PLANNER_PYTHON_WEBGPU", str(environment(tmp_path, onnxruntime_webgpu="1.27.0")))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(vulkan, "find", lambda _python: gpu)
    found = LAUNCHER.availability()
    assert (found.kind, found.runs_model(float16=False), found.runs_model(float16=True)) == (kind, runs, runs_float16)
    if gpu is None:
        assert "chromium" in found.reason
    else:
        assert found.packages == {"onnxruntime-webgpu": "1.27.0", gpu.name: gpu.version}


def test_without_its_package_the_reason_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PLANNER_PYTHON_WEBGPU", str(environment(tmp_path, onnxruntime="1.27.0")))
    found = LAUNCHER.availability()
    assert found.kind is None and "planner env create webgpu" in found.reason


def test_what_says_placement_alone_runs_no_model() -> None:
    found = Availability("placement", {}, "", Path("python"))
    assert not found.runs_model(float16=False)


def small() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"], name="own")], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_bytes_behind_a_model_add_two_nodes_to_it() -> None:
    asked = onnx.load_from_string(small().SerializeToString() + witness.nodes())
    onnx.checker.check_model(asked, full_check=True)
    assert [node.op_type for node in asked.graph.node] == ["Abs", "Relu", "Neg"]
    assert len(asked.graph.input) == len(asked.graph.output) == 3
    added = [witness.is_added(Placed(WEBGPU, node.op_type, node.name)) for node in asked.graph.node]
    assert added == [False, True, True]


def test_nodes_are_named_even_where_a_body_is_only_counted() -> None:
    lines = [
        f" Node(s) placed on [{CPU}]. Number of nodes: 1",
        "  If (if)",
        f" Node(s) placed on [{WEBGPU}]. Number of nodes: 1",
        "  Conv (/conv 1)",
        f" All nodes placed on [{WEBGPU}]. Number of nodes: 3",
    ]
    assert read_named(lines) == (Placed(CPU, "If", "if"), Placed(WEBGPU, "Conv", "/conv 1"))


class Session:
    """As much of onnxruntime's session as a launcher looks at; it recorded nothing."""

    def __init__(self, providers: list[str]) -> None:
        self.providers = providers

    def get_providers(self) -> list[str]:
        return self.providers


class Runtime:
    """As much of onnxruntime as a launcher looks at."""

    def __init__(self, answer: Session | Exception) -> None:
        self.answer = answer

    def InferenceSession(self, *_: Any, **__: Any) -> Session:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_placement_is_the_log_s_without_what_was_added(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small(), path)
    asked = []

    def logged(model: bytes) -> list[tuple[int, str, str]]:
        asked.append(onnx.load_from_string(model).graph.node[1].name)
        messages = [
            f" Node(s) placed on [{WEBGPU}]. Number of nodes: 3",
            "  Abs (own)",
            f"  Relu ({asked[0]})",
            "  MemcpyToHost (Memcpy)",
        ]
        return [(0, f"session_state.cc:1355 {WHERE}", message) for message in messages]

    assert LAUNCHER.assignment(Session([WEBGPU]), path, logged) == [(WEBGPU, "Abs", "own")]


def test_a_session_that_only_lacks_float16_has_a_placement_and_does_not_run() -> None:
    error = RuntimeError("Program Transpose requires f16 but the device does not support it.")
    session = LAUNCHER.session(Runtime(error), "m.onnx", None, {})
    assert session.get_providers() == [WEBGPU] and session.get_outputs() == []
    with pytest.raises(RuntimeError, match="requires f16"):
        session.run(None, {})
    with pytest.raises(RuntimeError, match="another"):
        LAUNCHER.session(Runtime(RuntimeError("another")), "m.onnx", None, {})


def test_a_session_that_fell_back_to_the_cpu_ep_is_none() -> None:
    with pytest.raises(Exception, match="no device"):
        LAUNCHER.session(Runtime(Session([CPU])), "m.onnx", None, {})


def test_the_log_says_why_a_node_was_left() -> None:
    lines = [
        (1, "webgpu_execution_provider.cc:635 GetCapability", "webgpu kernel not found in registries for Op type: Det node name: d 1"),
        (1, "fallback_cpu_capability.cc:193", "ORT optimization- Force fallback to CPU execution for node: s because the CPU execution path is deemed faster"),
    ]  # fmt: skip
    assert [(r.name, r.reason.partition(" ")[0]) for r in read_refusals(lines)] == [("d 1", "it"), ("s", "onnxruntime")]

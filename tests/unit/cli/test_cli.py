"""The command line as contract.md has it: exit statuses, one JSON document on stdout, plain lines on stderr. Runs no EP."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from planner.cli import main as cli
from planner.cli.common import print_table
from tests.unit.small_models import f32, graph, save

WEIGHT = f32(np.random.default_rng(0).normal(size=(4, 8)))
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Result:
    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no finite number")

        document = json.loads(self.out, parse_constant=refuse)
        assert next(iter(document)) == "schema"
        found: dict[str, Any] = document
        return found


Planner = Callable[..., Result]


@pytest.fixture
def planner(capsys: pytest.CaptureFixture[str]) -> Planner:
    def run(*args: object) -> Result:
        capsys.readouterr()
        status = cli.main([str(a) for a in args])
        out, err = capsys.readouterr()
        assert "Traceback" not in err and "Traceback" not in out
        if status in (1, 2, 3, 4):
            assert err.strip(), "the reason stands on stderr"
            assert len(err.splitlines()) <= 8 or "usage:" in err
        return Result(status, out, err)

    return run


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(graph("(float[2,4] x) => (float[2,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": WEIGHT}), tmp_path)


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    proto = graph("(float[N,4] x) => (float[N,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": WEIGHT})
    return save(proto, tmp_path, "dynamic.onnx")


# -- check --------------------------------------------------------------------------------------------------------------


def test_check_of_a_legal_model(planner: Planner, model: Path) -> None:
    result = planner("check", model, "--ep", "cpu", "--json")
    document = result.json
    assert result.status == 0 and result.err == ""
    assert document["schema"] == "planner/check/1" and document["legal"] is True and document["violations"] == []
    assert document["model"]["path"] == str(model) and document["model"]["node_count"] == 2
    assert document["model"]["opset"] == 20 and len(document["model"]["sha256"]) == 64
    assert document["target"]["ep"] == "CPUExecutionProvider" and document["target"]["device"] == "cpu"
    for node in document["nodes"]:
        assert {"name", "op_type", "weight", "activation", "on_target", "rule", "reason"} <= set(node)
        assert node["on_target"] is True and node["reason"] is None and node["rule"]


def test_the_full_name_of_an_ep_is_as_good_as_an_alias(planner: Planner, model: Path) -> None:
    for name in ("directml", "dml", "DmlExecutionProvider", "DIRECTML"):
        assert planner("check", model, "--ep", name, "--json").json["target"]["ep"] == "DmlExecutionProvider"


def test_w8a16_is_illegal_on_directml_since_it_has_no_sixteen_bit_quantizelinear(planner: Planner, model: Path) -> None:
    for asked in (["--precision", "w8a16"], ["--weight-type", "uint8", "--activation-type", "uint16"]):
        result = planner("check", model, "--ep", "directml", *asked, "--json")
        assert result.status == 1 and result.json["legal"] is False
        for violation in result.json["violations"]:
            assert {"node", "op_type", "weight", "activation", "rule", "reason", "suggestion"} <= set(violation)
            assert "QuantizeLinear has no uint16 kernel" in violation["reason"] and "8-bit" in violation["suggestion"]
        assert "QuantizeLinear has no uint16 kernel" in result.err


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8a8", "int8"])
def test_what_directml_takes(precision: str, planner: Planner, model: Path) -> None:
    assert planner("check", model, "--ep", "directml", "--precision", precision).status == 0


@pytest.mark.parametrize(
    ("device", "precision", "status"),
    [
        ("snapdragon-x-elite", "w16a16", 0),
        ("snapdragon-x-elite", "int16", 0),
        ("snapdragon-8-gen1", "w16a16", 1),
        ("snapdragon-x-elite", "fp16", 0),
        ("snapdragon-8cx-gen3", "fp16", 1),
        ("snapdragon-8cx-gen3", "w8a16", 0),
        ("snapdragon-8-gen1", "w8a16", 0),
        ("npu", "w8a8", 0),
    ],
)
def test_what_the_chips_of_qnn_take(device: str, precision: str, status: int, planner: Planner, model: Path) -> None:
    result = planner("check", model, "--ep", "qnn", "--device", device, "--precision", precision)
    assert result.status == status, result.err
    if status:
        assert "MatMul" in result.err and precision[-2:] in result.err.replace("float", "fp")


def test_a_batch_becomes_1_on_qnn_and_stays_open_where_it_may(planner: Planner, dynamic: Path) -> None:
    result = planner("check", dynamic, "--ep", "qnn", "--precision", "w8a16", "--json")
    assert result.status == 0 and "counts samples" in result.err
    assert result.json["model"]["shapes"] == {"x": {"dims": [1, 4], "by": "default"}}
    assert planner("check", dynamic, "--ep", "cpu", "--json").json["model"]["shapes"] == {}


def test_what_stays_open_on_qnn_gets_one_line_with_the_option_to_copy(planner: Planner, tmp_path: Path) -> None:
    proto = graph("(float[N,length,4] x) => (float[N,length,8] y)", "h = MatMul(x, w)\ny = Relu(h)", {"w": WEIGHT})
    text = save(proto, tmp_path, "text.onnx")
    result = planner("check", text, "--ep", "qnn", "--precision", "w8a16")
    assert result.status == 1 and "--shape x=1,length,4" in result.err and "ILLEGAL" not in result.out
    bound = planner("check", text, "--ep", "qnn", "--precision", "w8a16", "--shape", "x=1,7,4", "--json")
    assert bound.status == 0 and bound.json["model"]["shapes"]["x"]["by"] == "option"
    np.savez(tmp_path / "x.npz", x=np.zeros((4, 7, 4), np.float32))
    result = planner("plan", text, "--ep", "qnn", "--inputs", tmp_path / "x.npz", "-o", tmp_path / "p.json", "--json")
    assert result.status == 0 and result.json["model"]["shapes"] == {"x": {"dims": [1, 7, 4], "by": "inputs"}}
    assert result.json["shapes"] == {"x": [1, 7, 4]} and "as in --inputs" in result.err


def test_an_operator_that_nobody_knows(planner: Planner, tmp_path: Path) -> None:
    proto = graph("(float[2] x) => (float[2] y)", "y = acme.Frobnicate(x)", domains=["acme"], check=False)
    path = save(proto, tmp_path)
    for ep in ("cpu", "directml", "qnn"):
        result = planner("check", path, "--ep", ep)
        assert result.status == 1 and "acme:Frobnicate" in result.err, ep


def test_an_operator_that_no_rule_speaks_of_is_unknown_and_no_no(planner: Planner, model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "acme.yaml"
    profile.write_text(
        "schema: planner/profile/2\nep: AcmeExecutionProvider\ntitle: Acme\naliases: [acme]\ndefault_device: npu\n"
        "prefer: [fp32]\ndevices: {npu: {title: x, class: npu, source: {documented: x}}}\n"
        "source: {documented: x}\noperators: {MatMul: {takes: [{weight: float32, activation: float32}]}}\n"
    )
    asked = ("check", model, "--ep", "acme", "--profile", profile)
    result = planner(*asked, "--json")
    assert result.status == 4 and result.json["legal"] is None and result.json["violations"] == []
    assert [n["on_target"] for n in result.json["nodes"]] == [True, None]
    assert "cannot tell" in result.err and "--allow-unknown" in result.err
    assert planner(*asked, "--allow-unknown").status == 0


def test_a_users_profile_overrides_the_shipped_one(planner: Planner, model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        "schema: planner/profile/2\nep: CPUExecutionProvider\ntitle: mine\naliases: [cpu]\ndefault_device: cpu\n"
        "prefer: [fp32]\ndevices: {cpu: {title: x, class: cpu, source: {documented: x}}}\n"
        "source: {documented: x}\noperators: {'*': {refuses: [{why: nothing runs here, do: leave it}]}}\n"
    )
    result = planner("check", model, "--ep", "cpu", "--profile", profile)
    assert result.status == 1 and "nothing runs here" in result.err


# -- wrong requests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["check", "MODEL", "--ep", "tpu"], "unknown EP 'tpu'"),
        (["check", "MODEL", "--ep", "qnn", "--device", "toaster"], "no device 'toaster'"),
        (["check", "none.onnx", "--ep", "cpu"], "none.onnx: no such file"),
        (["check", "FOLDER", "--ep", "cpu"], "is a directory"),
        (["check", "MODEL", "--ep", "cpu", "--precision", "w3a3"], "unknown precision 'w3a3'"),
        (
            ["check", "MODEL", "--ep", "cpu", "--weight-type", "int7", "--activation-type", "uint8"],
            "unknown dtype 'int7'",
        ),
        (["check", "MODEL", "--ep", "cpu", "--weight-type", "int8"], "go together"),
        (["check", "MODEL", "--ep", "cpu", "--activation-type", "int8"], "go together"),
        (
            [
                "check",
                "MODEL",
                "--ep",
                "cpu",
                "--precision",
                "fp16",
                "--weight-type",
                "int8",
                "--activation-type",
                "int8",
            ],
            "exclude one another",
        ),
        (["check", "MODEL", "--ep", "cpu", "--profile", "none.yaml"], "none.yaml: no such file"),
        (["check", "MODEL", "--ep", "cpu", "--shape", "z=1,4"], "no input of the model"),
        (["check", "MODEL", "--ep", "cpu", "--shape", "x=1,5"], "contradicts"),
        (["check", "MODEL", "--ep", "cpu", "--shape", "x=1,-5"], "no shape"),
        (["check", "MODEL", "--ep", "cpu", "--shape", "x="], "no shape"),
        (["check", "MODEL", "--ep", "cpu", "--shape", "x=2,,4"], "no shape"),
        (["check", "MODEL", "--ep", "cpu", "--device", ""], "--device: is empty"),
        (["check", "MODEL", "--ep", "cpu", "--precision", " "], "--precision: is empty"),
        (["target", "MODEL", "--ep", "cpu", "--seed", "-1"], "no seed"),
        (["target", "MODEL", "--ep", "cpu", "-o", ""], "names no file"),
        (["target", "MODEL", "--ep", "cpu", "-o", "out/"], "names no file"),
        (["target", "MODEL", "--ep", "cpu", "-o", "x" * 300], "too long"),
        (["check", "MODEL", "--ep", "cpu", "--shape", "x=2,4", "--shape", "x=2,4"], "given twice"),
        (["check", "MODEL"], "--ep"),
        (["check", "MODEL", "--ep", "cpu", "--colour"], "--colour"),
        (["fly"], "fly"),
        ([], "COMMAND"),
        (["plan", "MODEL", "--ep", "cpu"], "--output"),
        (["plan", "MODEL", "--ep", "cpu", "-o", "MODEL", "--overwrite"], "would overwrite the input"),
        (["plan", "MODEL", "--ep", "cpu", "-o", "EXISTING"], "exists already"),
        (["plan", "MODEL", "--ep", "cpu", "-o", "FOLDER"], "is a directory"),
        (["plan", "MODEL", "--ep", "cpu", "-o", "none/plan.json"], "no such folder"),
        (["plan", "MODEL", "--ep", "cpu", "-o", "/dev/full", "--overwrite"], "not a regular file"),
        (["target", "MODEL", "--ep", "cpu", "-o", "MODEL", "--overwrite"], "would overwrite the input"),
        (["target", "MODEL", "--ep", "cpu", "-o", "EXISTING"], "exists already"),
        (["target", "MODEL", "--ep", "cpu", "-o", "out.onnx", "--inputs", "none.npz"], "none.npz"),
        (["target", "MODEL", "--ep", "cpu", "-o", "out.onnx", "--inputs", "no.such.module:f"], "no.such.module"),
        (["quantize", "MODEL", "--plan", "none.json"], "none.json: no such file"),
        (["quantize", "MODEL", "--plan", "EXISTING"], "not a plan file"),
        (["verify", "none.onnx", "--reference", "MODEL", "--ep", "cpu"], "none.onnx: no such file"),
        (["verify", "MODEL", "--reference", "none.onnx", "--ep", "cpu"], "none.onnx: no such file"),
        (["verify", "MODEL", "--ep", "cpu"], "--reference"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_wrong_request_is_status_2_with_one_reason(
    args: list[str], words: str, planner: Planner, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "existing.txt").write_text("precious")
    names = {"MODEL": str(model), "FOLDER": str(tmp_path), "EXISTING": "existing.txt"}
    before = model.read_bytes()
    result = planner(*[names.get(a, a) for a in args])
    assert result.status == 2 and words in result.err, result
    assert result.out == ""
    assert [p.name for p in folder.iterdir()] == ["existing.txt"] and (
        folder / "existing.txt"
    ).read_text() == "precious"
    assert model.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"# a text\n" * 40, None], ids=["empty", "text", "truncated"])
@pytest.mark.parametrize("command", ["check", "target"])
def test_a_file_that_is_no_model(
    command: str, content: bytes | None, planner: Planner, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(model.read_bytes()[:150] if content is None else content)
    result = planner(command, path, "--ep", "cpu", "--json")
    assert result.status == 2 and "broken.onnx" in result.err and "ONNX model" in result.err
    assert result.json["schema"] == "planner/error/1" and result.json["error"]["status"] == 2
    assert "broken.onnx" in result.json["error"]["message"] and result.json["error"]["hint"] in result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.onnx", "model.onnx"]


def test_a_malformed_profile_is_named_with_line_and_key(planner: Planner, model: Path, tmp_path: Path) -> None:
    profile = tmp_path / "p.yaml"
    profile.write_text("schema: planner/profile/2\nep: X\ncolour: red\n")
    result = planner("check", model, "--ep", "cpu", "--profile", profile)
    assert result.status == 2 and "p.yaml:3: colour: unknown key" in result.err and "default_device" in result.err


def test_a_folder_that_cannot_be_written(
    planner: Planner, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    result = planner("plan", model, "--ep", "cpu", "--precision", "fp32", "-o", tmp_path / "plan.json")
    assert result.status == 2 and "no permission" in result.err


# -- plan ---------------------------------------------------------------------------------------------------------------


def test_plan_writes_a_plan_and_prints_the_same(planner: Planner, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    result = planner("plan", model, "--ep", "cpu", "--precision", "fp32", "-o", output, "--json")
    assert result.status == 0
    document = result.json
    assert document == json.loads(output.read_text()) and document["schema"] == "planner/plan/1"
    assert {"precision", "nodes", "inputs", "profile", "model", "target"} <= set(document)
    assert {"name", "sha256"} <= set(document["profile"])
    for node in document["nodes"]:
        assert {"name", "op_type", "weight", "activation", "reason"} <= set(node) and node["reason"]


def test_plan_of_an_illegal_precision_writes_nothing(planner: Planner, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "plan.json"
    result = planner("plan", model, "--ep", "directml", "--precision", "w8a16", "-o", output, "--json")
    assert result.status == 1 and result.json["legal"] is False and not output.exists()


def test_a_plan_on_synthetic_data_says_so_loudly(planner: Planner, model: Path, tmp_path: Path) -> None:
    result = planner("plan", model, "--ep", "cpu", "--precision", "w8a8", "-o", tmp_path / "plan.json", "--json")
    assert result.status == 0 and result.json["inputs"]["synthetic"] is True
    assert "WARNING" in result.err and "synthetic" in result.err


def test_quantize_refuses_the_plan_of_another_model(
    planner: Planner, model: Path, dynamic: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    assert planner("plan", model, "--ep", "cpu", "--precision", "fp32", "-o", plan).status == 0
    result = planner("quantize", dynamic, "--plan", plan, "--output", tmp_path / "out.onnx")
    assert result.status == 2 and "not the model" in result.err and not (tmp_path / "out.onnx").exists()


def test_quantize_of_a_float_plan_gives_the_same_bytes_each_time(planner: Planner, model: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    assert planner("plan", model, "--ep", "directml", "--precision", "fp16", "-o", plan).status == 0
    hashes = []
    for name in ("a.onnx", "b.onnx"):
        result = planner("quantize", model, "--plan", plan, "--output", tmp_path / name, "--json")
        assert result.status == 0 and result.json["schema"] == "planner/quantize/1"
        artifact = result.json["artifact"]
        assert artifact["path"] == str(tmp_path / name) and artifact["bytes"] == (tmp_path / name).stat().st_size
        hashes.append(artifact["sha256"])
    assert hashes[0] == hashes[1]
    assert planner("quantize", model, "--plan", plan, "--output", tmp_path / "a.onnx").status == 2
    assert planner("quantize", model, "--plan", plan, "--output", tmp_path / "a.onnx", "--overwrite").status == 0


# -- eps, help, and what is told ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_directml")
def test_eps_lists_every_profile_and_what_it_is_here(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    result = planner("eps", "--json")
    assert result.status == 0 and result.json["schema"] == "planner/eps/1"
    by_name = {e["ep"]: e for e in result.json["eps"]}
    assert {"CPUExecutionProvider", "QNNExecutionProvider", "DmlExecutionProvider"} <= set(by_name)
    assert by_name["CPUExecutionProvider"]["here"] == "hardware"
    if sys.platform != "win32":
        assert by_name["DmlExecutionProvider"]["here"] == "emulation"
        assert "Windows" in by_name["DmlExecutionProvider"]["reason"]
    table = planner("eps")
    assert table.status == 0 and "snapdragon-x-elite" in table.out and "emulated" in table.out


def test_eps_warns_of_packages_that_overwrite_one_another(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ("onnxruntime 1.32.0", "onnxruntime-directml 1.24.4")
    monkeypatch.setattr("planner.runtime.environment.conflicts", lambda: both)
    result = planner("eps", "--json")
    assert result.json["conflicts"] == list(both)
    assert "WARNING" in result.err and "onnxruntime-directml" in result.err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_examples(command: str, planner: Planner) -> None:
    result = planner(command, "--help")
    assert result.status == 0 and result.err == ""
    assert "examples:" in result.out and f"planner {command}" in result.out.split("examples:")[1]


def test_help_of_the_whole_names_commands_and_exit_statuses(planner: Planner) -> None:
    out = planner("--help").out
    for word in (*cli.COMMANDS, "exit status", "examples:"):
        assert word in out
    assert planner("--version").out.startswith("planner ")


@pytest.mark.parametrize("command", ["--help", *cli.COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = (
        f"import sys; from planner.cli.main import main; main([{command!r}, '--help']);"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnx_ir', 'yaml', 'rich', 'msgspec', 'jinja2'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_package_itself_imports_nothing_heavy() -> None:
    code = "import sys, planner; sys.exit(str({'numpy', 'onnx', 'onnxruntime', 'onnx_ir'} & set(sys.modules) or ''))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.strip() in ("", "set()"), done.stderr


def _named(folder: Path, name: str) -> Path:
    node = helper.make_node("Relu", ["x"], ["y"], name=name)
    info = helper.make_tensor_value_info
    proto = helper.make_model(
        helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, [2])], [info("y", TensorProto.FLOAT, [2])]),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
    )
    return save(proto, folder, "named.onnx")


@pytest.mark.parametrize(
    "name",
    ["\x1b[31mred\x1b[0m\x07", "[bold]markup[/bold] [/]", "\N{SNOWMAN}\N{GRINNING FACE}", "a\nb\tc", "\u202eright to left", "x" * 3000],
    ids=["terminal codes", "markup", "emoji", "lines", "direction", "long"],
)  # fmt: skip
def test_a_nodes_name_cannot_write_to_the_terminal(name: str, planner: Planner, tmp_path: Path) -> None:
    path = _named(tmp_path, name)
    result = planner("check", path, "--ep", "directml", "--precision", "w8a16")
    assert result.status == 1
    for text in (result.out, result.err):
        assert not [c for c in text if not (c.isprintable() or c == "\n")], "control characters"
    if "markup" in name:
        assert "[bold]markup[/bold]" in result.out
    document = planner("check", path, "--ep", "directml", "--precision", "w8a16", "--json").json
    assert document["nodes"][0]["name"] == name, "the JSON keeps the name as it is"


def test_an_output_of_ascii_alone_can_show_any_name(tmp_path: Path) -> None:
    path = _named(tmp_path, "\N{SNOWMAN}\N{GRINNING FACE}\udce9".encode("utf-8", "replace").decode())
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "planner", "check", str(path), "--ep", "directml", "--precision", "w8a16"],
        capture_output=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr


def test_an_error_of_the_system_about_a_file_is_a_document_too(
    planner: Planner, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr("planner.api.check_model", full)
    result = planner("check", model, "--ep", "cpu", "--json")
    assert result.status == 2 and result.json["error"]["message"] == "/tmp/x: No space left on device"


def test_the_status_tells_where_stderr_cannot(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sys.stderr", Full())
    assert cli.main(["check", str(model.with_name("none.onnx")), "--ep", "cpu"]) == 2


def test_an_internal_error_is_one_line(planner: Planner, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("division by zero\nmore")

    monkeypatch.setattr("planner.api.check_model", broken)
    monkeypatch.delenv("PLANNER_DEBUG", raising=False)
    result = planner("check", model, "--ep", "cpu", "--json")
    assert result.status == 3 and "defect of planner" in result.err
    assert result.json["error"] == {
        "status": 3,
        "kind": "internal",
        "message": "internal error: ZeroDivisionError: division by zero",
        "hint": "this is a defect of planner; PLANNER_DEBUG=1 shows where",
    }
    monkeypatch.setenv("PLANNER_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["check", str(model), "--ep", "cpu"])


def test_what_the_users_own_function_prints_and_ends_disturbs_no_document(
    planner: Planner, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "talking_inputs.py").write_text(
        "import numpy as np, sys\nprint('loading')\n"
        "def samples():\n    print('one')\n    yield {'x': np.ones((2, 4), np.float32)}\n"
        "def ends():\n    sys.exit(0)\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = ("plan", model, "--ep", "cpu", "--precision", "w8a8", "-o", tmp_path / "plan.json", "--json", "--inputs")
    result = planner(*asked, "talking_inputs:samples")
    assert result.status == 0 and result.json["schema"] == "planner/plan/1"
    assert "loading" in result.err and "one" in result.err
    (tmp_path / "plan.json").unlink()
    result = planner(*asked, "talking_inputs:ends")
    assert result.status == 2 and "ended the program" in result.json["error"]["message"]
    assert not (tmp_path / "plan.json").exists()


@pytest.mark.parametrize("columns", ["", "many", "2.5", "0", "-3"])
def test_a_width_that_is_none_is_passed_over(
    columns: str, planner: Planner, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert planner("check", model, "--ep", "cpu").status == 0


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt, 130), (MemoryError, 3)])
def test_an_interruption_is_one_line(
    error: type[BaseException], status: int, planner: Planner, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("planner.api.check_model", broken)
    result = planner("check", model, "--ep", "cpu")
    assert result.status == status and len(result.err.splitlines()) <= 2 and result.out == ""


def test_a_json_document_never_holds_an_infinite_number(capsys: pytest.CaptureFixture[str]) -> None:
    from planner.cli.common import print_document

    with pytest.raises(ValueError, match="not JSON compliant"):
        print_document({"schema": "planner/x/1", "value": math.inf})
    assert capsys.readouterr().out == ""


def test_the_command_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    """sympy takes a third of a second and 33 MiB; onnx-ir imports it for what the planner never asks."""
    path = save(graph("(float[n,4] x) => (float[n,8] y)", "y = MatMul(x, w)", {"w": WEIGHT}), tmp_path)
    script = (
        "import sys; from planner.cli import supervisor; supervisor.available = lambda: False; "
        "from planner.cli.main import main; status = main(); "
        "assert status == 0, status; assert 'onnx_ir' in sys.modules; assert 'sympy.core' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, "check", str(path), "--ep", "cpu"], check=True, cwd=ROOT)


def test_a_model_that_is_quantized_already_is_judged_as_it_is_but_not_quantized_again(
    planner: Planner, tmp_path: Path
) -> None:
    body = "q = QuantizeLinear(x, s, z)\nd = DequantizeLinear(q, s, z)\nr = Relu(d)\np = QuantizeLinear(r, s, z)\ny = DequantizeLinear(p, s, z)"
    proto = graph("(float[2,4] x) => (float[2,4] y)", body, {"s": f32(0.1), "z": np.uint8(7)}, opset=21)
    path = save(proto, tmp_path)
    assert planner("check", str(path), "--ep", "qnn").status == 0
    for command in (
        ["check", "--precision", "w8a16"],
        ["plan", "-o", tmp_path / "plan.json"],
        ["target", "-o", tmp_path / "out.onnx"],
    ):
        result = planner(command[0], str(path), "--ep", "qnn", *command[1:])
        assert result.status == 2 and "quantized already (" in result.err and ": 1 nodes, first Relu" in result.err
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_violations_of_one_rule_are_one_line(planner: Planner, tmp_path: Path) -> None:
    """What is still open gets a line for each input, with the option to copy, and no table of refusals."""
    proto = graph("(float[1,length] x) => (float[1,length] y)", "a = Relu(x)\nb = Sigmoid(a)\ny = Relu(b)")
    result = planner("check", str(save(proto, tmp_path)), "--ep", "qnn")
    assert result.status == 1 and "Relu" not in result.out + result.err
    assert result.err.splitlines()[-1].strip() == "--shape x=1,length"
    (violation,) = planner("check", str(save(proto, tmp_path)), "--ep", "qnn", "--json").json["violations"]
    assert (violation["node"], violation["rule"], violation["suggestion"]) == (
        "x",
        "static-shapes",
        "--shape x=1,length",
    )


def test_a_table_may_begin_with_an_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("\nkernels \x1b[31m", ["opset"], [["13+"]])
    assert capsys.readouterr().out.splitlines()[:2] == ["", "kernels \ufffd[31m"]


def test_a_table_whose_reader_is_gone_ends_as_any_other_output() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        done = subprocess.run([sys.executable, "-m", "planner", "eps"], stdout=gone, stderr=subprocess.PIPE, cwd=ROOT)
    assert (done.returncode, done.stderr) == (141, b"")


def test_the_words_that_matter_fit_a_narrow_terminal(planner: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = planner("eps").out
    assert "snapdragon-8-elite-gen5  simulated" in out or "snapdragon-8-elite-gen5  emulated" in out


def test_a_report_cannot_lie_in_the_file_of_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = save(graph("(float[1,4] x) => (float[1,4] y)", "y = Relu(x)"), tmp_path), tmp_path / "out.onnx"
    asked = ["target", str(source), "--ep", "cpu", "-o", str(out), "--report-dir", str(out / "report")]
    assert cli.main(asked) == 2 and not out.exists()
    assert "which becomes a file\n  give another --report-dir" in capsys.readouterr().err

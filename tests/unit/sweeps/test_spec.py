"""What a sweep is asked for, and the cells that it comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from planner.document import Document
from planner.errors import RequestError
from planner.sweeps.grid import cells_of
from planner.sweeps.spec import Spec, find_models, read_spec
from tests.unit.small_models import f32, graph, save


def model(folder: Path, name: str, seed: int = 0) -> Path:
    weight = f32(np.random.default_rng(seed).normal(size=(4, 8)))
    return save(graph("(float[2,4] x) => (float[2,8] y)", "y = MatMul(x, w)", {"w": weight}), folder, name)


def spec(folder: Path, **content: object) -> tuple[Spec, Document]:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"models": [{"path": "*.onnx"}], "targets": [{"ep": "cpu"}], **content}))
    return read_spec(path)


def test_cells_are_models_times_targets_times_precisions(tmp_path: Path) -> None:
    for i, name in enumerate(("b.onnx", "a.onnx")):
        model(tmp_path, name, i)
    asked = spec(tmp_path, targets=[{"ep": "cpu"}, {"ep": "dml"}], precisions=["fp32", "auto"])
    cells = [(t.name, t.ep, t.precision) for t in cells_of(*asked)]
    assert len(cells) == len(set(cells)) == 8
    assert [c[0] for c in cells] == ["a"] * 4 + ["b"] * 4
    assert cells[:2] == [("a", "CPUExecutionProvider", "fp32"), ("a", "CPUExecutionProvider", "auto")]


def test_without_precisions_each_profile_gives_its_own(tmp_path: Path) -> None:
    model(tmp_path, "a.onnx")
    precisions = {t.precision for t in cells_of(*spec(tmp_path, targets=[{"ep": "qnn"}]))}
    assert {"w8a16", "fp16"} <= precisions


def test_a_key_hangs_on_contents_and_options_not_on_paths(tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("two", 0), ("three", 7)):
        (tmp_path / folder).mkdir()
        model(tmp_path / folder, "a.onnx", seed)
    (one,), (two,) = (cells_of(*spec(tmp_path / folder, precisions=["fp32"])) for folder in ("one", "two"))
    assert one.model != two.model and one.key == two.key
    (lower,) = cells_of(*spec(tmp_path / "one", precisions=["fp32"], floor=10))
    (seeded,) = cells_of(*spec(tmp_path / "one", precisions=["fp32"], options={"seed": 1}))
    (other,) = cells_of(*spec(tmp_path / "three", precisions=["fp32"]))
    assert len({one.key, lower.key, seeded.key, other.key}) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"models": []}, "models"),
        ({"models": [{"path": "none.onnx"}]}, "models.0..path: none.onnx: no such file"),
        ({"models": [{"path": "none*.onnx"}]}, "matches no file"),
        ({"models": [{"path": "a" * 5000}]}, "models.0..path: a+: no such file"),
        ({"models": [{"path": "a.onnx", "inputs": "a" * 5000}]}, "models.0..inputs: a+: no such file"),
        ({"models": [{"path": "a.onnx\0"}]}, "models.0..path: .*: no such file"),
        ({"models": [{"path": "a.onnx", "inputs": "os:getcwd"}]}, "is a function"),
        ({"models": [{"path": "a.onnx", "shapes": {"x": [0]}}]}, "shapes"),
        ({"models": [{"path": "a.onnx", "shape": {}}]}, r"sweep.yaml:3: models\[0\].shape: unknown key"),
        ({"models": [{"path": "*.onnx", "name": "m"}]}, "is 2 models"),
        ({"targets": [{"ep": "cpu"}, {"ep": "no-such"}]}, r"sweep.yaml:5: targets\[1\]: .*no-such"),
        ({"targets": [{"ep": "cpu", "devices": ["no-such"]}]}, "no-such"),
        ({"precisions": ["fp32", "w9a9"]}, r"sweep.yaml:5: precisions\[1\]: unknown precision 'w9a9'"),
        ({"floor": "high"}, r"sweep.yaml:1: floor: .*high"),
        ({"models": [{"path": "a.onnx", "floor": "high"}]}, r"sweep.yaml:2: models\[0\].floor: .*high"),
        ({"floor": [20]}, "floor: expected a finite number or a string or null, not .20."),
        ({"targets": [{"ep": "cpu", "devices": ["cpu", 3]}]}, r"targets\[0\].devices\[1\]: expected a string, not 3"),
        ({"options": {"run": "perhaps"}}, "options.run: expected true or false, not 'perhaps'"),
        ({"options": {"time_limit": 0}}, "time_limit"),
        ({"options": {"time_limit": float("inf")}}, "time_limit"),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, object], message: str, tmp_path: Path) -> None:
    model(tmp_path, "a.onnx")
    model(tmp_path, "b.onnx", 1)
    with pytest.raises(RequestError, match=message):
        cells_of(*spec(tmp_path, **content))


def test_a_spec_runs_no_code(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("models: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(RequestError, match="not valid YAML"):
        read_spec(path)


def test_a_model_named_twice_is_one(tmp_path: Path) -> None:
    model(tmp_path, "a.onnx")
    asked = spec(tmp_path, models=[{"path": "a.onnx"}, {"path": "*.onnx"}])
    assert len(find_models(*asked)) == 1

"""The house: no circle between files, and no import from a lower room into a higher one."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import planner

PACKAGE = Path(planner.__file__).parent
# From the ground up: a room may use those before it, and itself. `planner` itself has the version and the public names.
ROOMS = (
    ("errors", "__init__"),
    ("dtypes", "files", "codec", "document", "progress", "limits", "user_code"),
    ("operators", "contrib"),
    ("model",),
    ("runtime",),
    ("profiles",),
    ("calibrate",),
    ("resolve",),
    ("quantization",),
    ("estimation",),
    ("verification",),
    ("search",),
    ("probe",),
    ("derive",),
    ("reporting",),
    ("sweeps",),
    ("results",),
    ("api", "public"),
    ("explain",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name below `planner`: "model.read"; a package's own is "model"."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports() -> dict[str, set[str]]:
    """Module -> modules of planner that it imports, wherever in the file, for type checkers too."""
    known = modules()

    def module_of(dotted: str) -> str:
        """The file that a name below `planner` comes from: the longest part of it that is one."""
        while dotted and dotted not in known:
            dotted = dotted.rpartition(".")[0]
        return dotted or "__init__"

    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "planner":
                base = (node.module or "").removeprefix("planner").removeprefix(".")
                graph[name] |= {module_of(f"{base}.{alias.name}".lstrip(".")) for alias in node.names}
            elif isinstance(node, ast.Import):
                graph[name] |= {
                    module_of(alias.name.removeprefix("planner").removeprefix("."))
                    for alias in node.names
                    if alias.name.split(".")[0] == "planner"
                }
        graph[name].discard(name)
    return graph


def test_no_circle_between_files() -> None:
    # `planner` itself imports its API where a name of it is asked for: that is what makes importing it cheap.
    graph = {name: found for name, found in imports().items() if name != "__init__"}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        raise AssertionError(f"these files import one another: {' -> '.join(error.args[1])}") from None


def test_no_import_from_a_lower_room_into_a_higher_one() -> None:
    upward = [
        f"{name} -> {imported}"
        for name, found in imports().items()
        if name != "__init__"
        for imported in sorted(found)
        if FLOOR[imported.split(".")[0]] > FLOOR[name.split(".")[0]]
    ]
    assert not upward


def test_every_room_has_its_floor() -> None:
    assert {name.split(".")[0] for name in modules()} <= FLOOR.keys()


def test_a_command_parses_calls_and_renders() -> None:
    """Its `run` is short: a decision, or the form of its JSON, belongs into a room below."""
    long = {}
    for path in sorted((PACKAGE / "cli").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == "run":
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                long.update({path.name: lines} if lines > 60 else {})
    assert not long


def test_no_room_is_too_crowded() -> None:
    crowded = {
        name: lines
        for name, path in modules().items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert not crowded

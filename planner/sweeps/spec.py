"""What a sweep is asked for: models, targets, precisions, a floor and options, as a YAML file says."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from planner.calibrate.inputs import data_beside
from planner.codec import Where
from planner.document import Document, read_yaml
from planner.dtypes import as_precision
from planner.errors import RequestError, first_line
from planner.files import exists
from planner.limits import MOST_SECONDS
from planner.runtime.environment import cache_folder
from planner.verification.floor import parse_floor

Count = Annotated[int, Meta(ge=1)]


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Models of one kind.

    Attributes:
        path: a file, a glob ("models/**/*.onnx") or a URL that fsspec knows; relative to the spec.
        shapes: fixed dimensions by input name.
        inputs: an .npz file or a folder of such files, relative to the spec; a spec runs no code, so no function.
        floor: what counts as faithful for these, where it differs from the spec's own.
        name: what the report calls the model; only where the path is a single file.
    """

    path: str
    shapes: dict[str, list[Count]] = {}
    inputs: str | None = None
    floor: float | str | None = None
    name: str = ""


class TargetEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An EP and devices of its profile; without any, the profile's default, and "all" for each of them."""

    ep: str
    devices: list[str] = []


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How cells are judged.

    Attributes:
        run: False judges by the profiles alone.
        allow_unknown: run what the profile has no evidence for, and let the EP decide.
        seed: of synthetic data.
        estimate: also estimate what a run costs, by the schedule of the chip's compiler where it writes one.
        time_limit: seconds that a cell may take.
        memory_limit: MiB of address space that a cell's own process may take; None for no limit.
        profiles: files that add to or override the shipped profiles, relative to the spec.
        evidence: files that `planner probe --from-model` wrote, relative to the spec.
    """

    run: bool = True
    allow_unknown: bool = False
    seed: Annotated[int, Meta(ge=0)] = 0
    estimate: bool = True
    time_limit: Annotated[float, Meta(gt=0, lt=MOST_SECONDS)] = 900.0
    memory_limit: Count | None = None
    profiles: list[str] = []
    evidence: list[str] = []


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sweep as written. Precisions: by name, "auto" among them; none for those that each profile prefers."""

    models: Annotated[list[ModelEntry], Meta(min_length=1)]
    targets: Annotated[list[TargetEntry], Meta(min_length=1)]
    precisions: list[str] = []
    floor: float | str | None = None
    options: Options = Options()


@dataclass(frozen=True)
class SweptModel:
    """One model of a sweep: where it lies, and what belongs to it."""

    path: Path
    entry: ModelEntry
    inputs: str | None

    @property
    def name(self) -> str:
        """What the spec calls it; empty where it says nothing."""
        return self.entry.name


def read_spec(path: Path) -> tuple[Spec, Document]:
    """Read a spec; the document says where in the file something is wrong.

    Raises:
        RequestError: it cannot be read, is no YAML, or is malformed (named by its path inside the file).
    """
    hint = "a sweep has `models` (each with a `path`) and `targets` (each with an `ep`): see `planner sweep --help`"
    spec, document = read_yaml(Spec, path, "a sweep", hint)
    for i, name in enumerate(spec.precisions):
        with document.at("precisions", i):
            as_precision(name)
    floors: dict[Where, float | str | None] = {("floor",): spec.floor}
    floors |= {("models", i, "floor"): entry.floor for i, entry in enumerate(spec.models)}
    for where, floor in floors.items():
        if floor is not None:
            with document.at(*where):
                parse_floor(str(floor))
    return spec, document


def find_models(spec: Spec, document: Document) -> tuple[SweptModel, ...]:
    """The files that the spec's paths come to, in its order; those of a glob by name.

    Args:
        spec: as read.
        document: it as written. Relative paths start where it lies.

    Raises:
        RequestError: a path that is no file, a glob that matches none, a name for several, inputs that name a function.
    """
    folder, found = document.path.parent, dict[Path, SweptModel]()
    for i, entry in enumerate(spec.models):
        with document.at("models", i, "path"):
            paths = _paths(entry.path, folder)
        if entry.name and len(paths) > 1:
            problem = f"{entry.path} is {len(paths)} models"
            raise document.error(("models", i, "name"), problem, "name them one by one")
        with document.at("models", i, "inputs"):
            inputs = None if entry.inputs is None else data_beside(folder, entry.inputs)
        for path in paths:
            found.setdefault(path, SweptModel(path, entry, inputs))
    return tuple(found.values())


def _paths(text: str, folder: Path) -> list[Path]:
    if "://" in text:
        return [_fetched(text)]
    if glob.has_magic(text):
        matched = sorted(glob.glob(str(folder / text), recursive=True))  # noqa: PTH207 - the text may be absolute
        if not matched:
            raise RequestError(f"{text}: matches no file")
        return [Path(path) for path in matched]
    path = folder / text
    if not exists(path) or not path.is_file():
        raise RequestError(f"{text}: no such file", f"relative paths start at {folder}")
    return [path]


def _fetched(url: str) -> Path:
    """A file of another storage, copied into planner's cache once."""
    try:
        import fsspec
    except ImportError:
        raise RequestError(f"{url}: reading it needs fsspec", "pip install 'planner[sweep]'") from None
    try:
        storage = str(cache_folder() / "models")
        return Path(fsspec.open_local(f"filecache::{url}", filecache={"cache_storage": storage, "check_files": True}))
    except Exception as error:
        # Each storage has errors of its own.
        raise RequestError(f"{url}: {first_line(error)}") from None

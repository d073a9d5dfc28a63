"""Loading profiles: the ones shipped with planner, and the user's own, which add to or override them."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import yaml

from planner.dtypes import DType, parse_precision
from planner.errors import RequestError
from planner.files import read_text
from planner.profiles.installed import installed_kernels
from planner.profiles.schema import PROCESSOR_TRAITS, Kernel, KernelTable, Profile, ProfileFile, index_rules

# libyaml reads a large profile ten times faster; a platform without it has the same loader in Python.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LARGEST_FILE = 4 << 20
_DEEPEST = 32
INSTALLED = "installed"


def shipped_directory() -> Path:
    """Where the shipped profiles lie: inside the wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "ep_profiles"
    return inside if inside.is_dir() else package.parent / "ep_profiles"


@dataclass(frozen=True)
class Profiles:
    """All profiles that are known in a run, by full provider name."""

    by_ep: Mapping[str, Profile]

    def find(self, name: str) -> Profile:
        """The profile for an alias or a full provider name.

        Raises:
            RequestError: if no profile has the name; the message lists those that exist.
        """
        wanted = name.lower()
        for profile in reversed(list(self.by_ep.values())):  # a user's own alias before ours
            if wanted == profile.ep.lower() or wanted in (a.lower() for a in profile.file.aliases):
                return profile
        known = ", ".join(min([p.ep, *p.file.aliases], key=len) for p in self.by_ep.values())
        raise RequestError(f"unknown EP {name!r}", f"known: {known}; add one with --profile FILE (see `planner eps`)")


def load_profiles(extra: Sequence[Path] = ()) -> Profiles:
    """The shipped profiles, then the user's, each replacing one for the same EP.

    Raises:
        RequestError: a file is missing, hostile or malformed; the message names file, line, key and allowed values.
    """
    by_ep: dict[str, Profile] = {}
    for profile in (*_shipped(), *map(load_profile, extra)):
        by_ep.pop(profile.ep, None)
        by_ep[profile.ep] = profile
    return Profiles(by_ep)


@functools.cache
def _shipped() -> tuple[Profile, ...]:
    return tuple(load_profile(path) for path in sorted(shipped_directory().glob("*.yaml")))


def load_profile(path: Path | str) -> Profile:
    """Read and check one profile file."""
    path = Path(path)
    text = _read(path)
    lines, data = _parse(path, text)
    file = _convert(path, data, lines)
    _check(path, file, lines)
    digest = hashlib.sha256(text.encode())
    tables: dict[str, KernelTable] = {}
    notes: list[str] = []
    for name in dict.fromkeys(r.kernels for r in file.rules if r.kernels is not None):
        table_path = _beside(path, f"{file.ep}.kernels.json" if name == INSTALLED else name)
        if name == INSTALLED:
            content, note = installed_kernels(file.ep, _read(table_path) if table_path.exists() else None)
            notes += [note] if note else []
        else:
            content = _read(table_path)
        tables[name] = read_kernel_table(table_path, content)
        digest.update(content.encode())
    return Profile(
        path=str(path),
        sha256=digest.hexdigest(),
        file=file,
        prefer={
            name: tuple(parse_precision(p) for p in (device.prefer or file.prefer))
            for name, device in file.devices.items()
        },
        tables=tables,
        notes=tuple(notes),
        _by_operator=index_rules(file.rules),
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a profile file, for editors."""
    return msgspec.json.schema(ProfileFile)


def _read(path: Path) -> str:
    try:
        return read_text(path, limit=_LARGEST_FILE)
    except RequestError as error:
        raise RequestError(str(error), "give the path of a profile: YAML in UTF-8") from None


def _beside(path: Path, name: str) -> Path:
    if Path(name).name != name or "\0" in name:
        raise RequestError(f"{path}: kernel table {name!r} must be a file beside the profile")
    own = path.parent / name
    return own if own.exists() else shipped_directory() / name


_Lines = dict[tuple[str | int, ...], int]


def _parse(path: Path, text: str) -> tuple[_Lines, Any]:
    """The YAML document as plain data, and the line of every key. Aliases, custom tags and duplicate keys are refused:
    a profile needs none, and they are how a YAML file attacks its reader.
    """
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise RequestError(f"{path}:{_event_line(event)}: anchors and aliases are not allowed in a profile")
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            data = None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
        if root is None:
            raise RequestError(f"{path}: the file is empty", "see docs/writing-a-profile.md")
        lines: _Lines = {}
        _walk(path, root, (), lines)
        return lines, data
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RequestError(f"{where}: not valid YAML: {problem}") from None
    except (RecursionError, ValueError, OverflowError) as error:
        raise RequestError(f"{path}: not valid YAML: {type(error).__name__}") from None


def _event_line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _walk(path: Path, node: yaml.Node, where: tuple[str | int, ...], lines: _Lines) -> None:
    lines[where] = node.start_mark.line + 1
    if len(where) > _DEEPEST:
        raise RequestError(f"{path}:{lines[where]}: nested more than {_DEEPEST} deep")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise RequestError(f"{path}:{key.start_mark.line + 1}: duplicate key {_dotted((*where, name))}")
            seen.add(name)
            _walk(path, value, (*where, name), lines)
            lines[(*where, name)] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(path, value, (*where, i), lines)


def _dotted(where: Sequence[str | int]) -> str:
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in where)
    return text.removeprefix(".") or "(top)"


_AT = re.compile(r"^(?P<what>.*?)(?: - at (?:`key` in )?`\$(?P<path>[^`]*)`)?$", re.DOTALL)


def _convert(path: Path, data: Any, lines: _Lines) -> ProfileFile:
    try:
        return msgspec.convert(data, ProfileFile)
    except (msgspec.ValidationError, RecursionError) as error:
        match = _AT.match(str(error))
        assert match is not None
        what = match["what"].replace("`", "'")
        where: tuple[str | int, ...] = tuple(
            int(p) if p.isdigit() else p
            for p in re.findall(r"\[(\d+|\.\.\.)\]|\.([^.\[\]]+)", match["path"] or "")
            for p in p
            if p
        )
        where = _resolve_wildcards(where, data, what)
        unknown = re.search(r"unknown field '([^']*)'", what)
        hint = f"allowed keys: {', '.join(_keys_at(where))}" if unknown else _allowed(what)
        if unknown:
            where = (*where, unknown[1])
            what = "unknown key"
        raise RequestError(f"{path}:{_line(where, lines)}: {_dotted(where)}: {what}", hint) from None


def _resolve_wildcards(where: tuple[str | int, ...], data: Any, what: str) -> tuple[str | int, ...]:
    """msgspec writes a key of a mapping as [...]; find the entry that is meant by trying each."""
    for i, part in enumerate(where):
        if part == "...":
            inner = data
            for step in where[:i]:
                inner = inner[step]
            for key in inner if isinstance(inner, dict) else ():
                candidate = (*where[:i], str(key), *where[i + 1 :])
                trial = _prune(data, where[:i], key)
                try:
                    msgspec.convert(trial, ProfileFile)
                except msgspec.ValidationError as error:
                    if what in str(error).replace("`", "'"):
                        return candidate
            return where[:i]
    return where


def _prune(data: Any, where: Sequence[str | int], key: str) -> Any:
    """The data with only one entry left in the mapping at ``where``."""
    if not where:
        return {key: data[key]}
    copy: Any = dict(data) if isinstance(data, dict) else list(data)
    copy[where[0]] = _prune(data[where[0]], where[1:], key)
    return copy


def _line(where: tuple[str | int, ...], lines: _Lines) -> int:
    while where and where not in lines:
        where = where[:-1]
    return lines.get(where, 1)


def _keys_at(where: Sequence[str | int]) -> list[str]:
    """The keys that the format knows at this place."""
    kind: Any = ProfileFile
    for part in where:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            names = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
            hints = get_type_hints(kind)
            kind = hints.get(names.get(str(part), str(part)), kind)
        else:
            kind = next((a for a in reversed(get_args(kind)) if a is not type(None)), kind)
    found = list(_structs(kind))
    return [name for k in found for name in k.__struct_encode_fields__]


def _structs(kind: Any) -> list[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return [kind]
    return [s for a in get_args(kind) for s in _structs(a)]


def _allowed(what: str) -> str:
    if "enum" in what.lower():
        return f"allowed: {', '.join(d.value for d in DType)}"
    return ""


def _check(path: Path, file: ProfileFile, lines: _Lines) -> None:
    """What the types cannot say: references must lead somewhere."""

    def fail(where: tuple[str | int, ...], what: str, hint: str = "") -> RequestError:
        return RequestError(f"{path}:{_line(where, lines)}: {_dotted(where)}: {what}", hint)

    if file.default_device not in file.devices:
        raise fail(("default_device",), f"no device {file.default_device!r}", f"allowed: {', '.join(file.devices)}")
    for where, names in [
        (("prefer",), file.prefer),
        *(((("devices", n, "prefer")), d.prefer) for n, d in file.devices.items()),
    ]:
        for i, name in enumerate(names):
            try:
                parse_precision(name)
            except RequestError as error:
                raise fail((*where, i), str(error), error.hint) from None
    traits = {t for d in file.devices.values() for t in d.traits}
    if any(d.kind == "cpu" for d in file.devices.values()):
        traits.update(PROCESSOR_TRAITS)
    seen: set[str] = set()
    for i, rule in enumerate(file.rules):
        if rule.id in seen:
            raise fail(("rules", i, "id"), f"rule id {rule.id!r} is used twice")
        seen.add(rule.id)
        for key in ("traits", "without"):
            for trait in getattr(rule, key):
                if trait not in traits:
                    raise fail(
                        ("rules", i, key), f"no device has trait {trait!r}", f"traits: {', '.join(sorted(traits))}"
                    )


def read_kernel_table(path: Path, content: str) -> KernelTable:
    """A kernel table file: {"source": text, "kernels": {domain: {operator: [{"opset": "13+", "types": {"T": [..]}}]}}}.

    Opsets are written "13" (that one alone), "11-12" or "13+" (from 13 on), element types as in ONNX Runtime's kernel
    documentation ("float", "float16", "int8").
    """
    try:
        data = json.loads(content)
        kernels = {
            ("" if domain == "ai.onnx" else domain, op): tuple(_kernel(k) for k in entries)
            for domain, ops in data["kernels"].items()
            for op, entries in ops.items()
        }
        return KernelTable(str(data["source"]), kernels)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RequestError(f"{path}: not a kernel table: {type(error).__name__}: {error}") from None


_TYPE_NAMES = {"float": "float32", "double": "float64"}


def _kernel(entry: Mapping[str, Any]) -> Kernel:
    first, _, last = str(entry["opset"]).partition("-")
    open_ended = first.endswith("+")
    start = int(first.rstrip("+"))
    end = None if open_ended else int(last) if last else start
    types = {c: frozenset(_TYPE_NAMES.get(t, t) for t in names) for c, names in entry["types"].items()}
    return Kernel(start, end, types)


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=1))

"""`python -m planner.derive EP`: write the generated statements of a shipped profile anew, from the evidence beside it."""

from __future__ import annotations

import sys

import msgspec

from planner.derive.prune import superfluous
from planner.derive.rules import derive
from planner.derive.write import to_yaml
from planner.errors import RequestError
from planner.files import write_text
from planner.probe.evidence import directory, load
from planner.profiles.load import load_profile
from planner.profiles.rules import DERIVED
from planner.profiles.schema import Operator
from planner.profiles.shipped import PROFILE, shipped_directory

_PACKAGES = ("onnxruntime-qnn", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-webgpu")


def main(name: str) -> None:
    """Derive the statements of a profile.

    Args:
        name: the folder of the profile in ep_profiles/.

    Raises:
        RequestError: there is no such profile, it names no file for them, or there is no evidence.
    """
    path = shipped_directory() / name / PROFILE
    profile = load_profile(path, derived=to_yaml({}, "X", "nothing", ""))
    folder = directory(profile.ep)
    evidence = {d: load(folder / f"{d}.json") for d in profile.devices if (folder / f"{d}.json").is_file()}
    if profile.file.derived is None or not evidence:
        raise RequestError(f"{path}: no `derived` file, or no evidence in {folder}", "see docs/adding-an-ep.md")
    found = derive(profile, evidence)
    source = ", ".join(sorted({f"{p} {e.runtime[p]}" for e in evidence.values() for p in _PACKAGES if p in e.runtime}))
    command = f"python -m planner.derive {name}"
    text = to_yaml(found.operators, profile.ep, source, command)
    left_out = superfluous(load_profile(path, derived=text), evidence)
    kept = {op: _without(operator, op, left_out) for op, operator in found.operators.items()}
    write_text(path.with_name(profile.file.derived), to_yaml(kept, profile.ep, source, command))
    for line in found.unexplained:
        print(line, file=sys.stderr)
    count = sum(len(o.takes) + len(o.refuses) for o in kept.values())
    print(f"{count} statements about {len(kept)} operators from {len(evidence)} devices", file=sys.stderr)


def _without(operator: Operator, name: str, left_out: set[str]) -> Operator:
    """What is said of an operator, without the statements whose ids are left out."""

    def kept(kind: str) -> list[object]:
        return [s for i, s in enumerate(getattr(operator, kind)) if f"{DERIVED}{name}.{kind}[{i}]" not in left_out]

    return msgspec.structs.replace(operator, takes=kept("takes"), refuses=kept("refuses"))


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) == 2 else "")
    except RequestError as error:
        raise SystemExit(f"{error}\n{error.hint}") from None

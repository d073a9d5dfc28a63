"""The pre-commit hook: `planner check` for each of the files that pre-commit names at the end of the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from planner.cli.main import main as planner


def main(argv: Sequence[str] | None = None) -> int:
    """Check every file with the same options; 1 (illegal) before 2 and 3 (failures) before 4 (cannot tell)."""
    given = list(sys.argv[1:] if argv is None else argv)
    files: list[str] = []
    while given and given[-1].endswith(".onnx"):
        files.insert(0, given.pop())
    statuses = {planner(["check", *given, "--", file]) for file in files}
    return next((status for status in (1, 2, 3, 4) if status in statuses), 0)


if __name__ == "__main__":
    sys.exit(main())

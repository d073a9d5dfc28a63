"""Functions of the user's own, named "package.module:function" on the command line."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from planner.errors import PlannerError, RequestError

# Where the user's code, called in a folder, has gone to since.
_gone_to: dict[str, str] = {}


def load_function(name: str, option: str) -> Callable[..., Any]:
    """The function of that name.

    Args:
        name: "package.module:function".
        option: by which it was named, for the error: "--inputs".

    Raises:
        RequestError: there is none, or its module fails.
    """
    module_name, _, function_name = name.partition(":")
    with running(name, option):
        function = getattr(importlib.import_module(module_name), function_name)
    if not callable(function):
        raise RequestError(f"{option} {name} is no function", "write module:function")
    found: Callable[..., Any] = function
    return found


@contextlib.contextmanager
def running(name: str, option: str) -> Iterator[None]:
    """The user's code runs in here: where it fails, or would end the program, the request is wrong.

    Its modules lie where the command is run, as with pytest and python -m. Where it goes to another folder, it finds itself there
    again; planner, whose paths may be relative, does not follow.

    Raises:
        RequestError: it failed.
    """
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        with contextlib.chdir(_gone_to.get(folder, folder)):
            try:
                yield
            finally:
                _gone_to[folder] = str(Path.cwd())
    except PlannerError:
        raise  # planner failed, which it called, not the function
    except SystemExit as stop:
        raise RequestError(
            f"{option} {name} ended the program (SystemExit: {stop.code})",
            "a module that is a script as well does its work below `if __name__ == '__main__':`",
        ) from None
    except Exception as error:
        hint = "modules are looked for here and on PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        raise RequestError(f"{option} {name}: {type(error).__name__}: {error}", hint) from None
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)

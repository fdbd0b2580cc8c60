"""From ``module:function`` in a manifest to the function."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from flinkjob.api.errors import InvalidInput, TaskCancelled
from flinkjob.taskmanager.failures import one_line


def load_function(reference: str, module_dir: str | os.PathLike[str]) -> Callable[..., Any]:
    """The function that ``module:function`` names; modules beside the manifest come before installed ones.

    Args:
        reference: module and function, either of them dotted if need be.
        module_dir: the manifest's directory; it is put on ``sys.path`` and stays there. "" adds nothing.

    Raises:
        InvalidInput: the module cannot be imported (its own exception is the cause), or has no such function.
        TaskCancelled: the task that wants it was told to stop meanwhile.
    """
    directory = os.fspath(module_dir)
    if directory and directory not in sys.path:
        sys.path.insert(0, directory)
        importlib.invalidate_caches()
    name, _, path = reference.partition(":")
    try:
        target: Any = importlib.import_module(name)
    except TaskCancelled:
        raise
    except Exception as error:
        raise InvalidInput(_import_failure(reference, name, directory, error)) from error
    except SystemExit as error:
        raise InvalidInput(f"{reference}: module {name!r} exits when it is imported") from error
    for part in path.split("."):
        if not hasattr(target, part):
            raise InvalidInput(f"{reference}: module {name!r} has no {path!r}")
        target = getattr(target, part)
    if not callable(target):
        raise InvalidInput(f"{reference} is a {type(target).__name__}, not a function")
    function: Callable[..., Any] = target
    return function


def _import_failure(reference: str, name: str, module_dir: str, error: Exception) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (name == missing or name.startswith(f"{missing}.")):
        return f"{reference}: there is no module {missing!r} in {module_dir or 'the installed packages'}"
    return f"{reference}: module {name!r} cannot be imported: {one_line(error)}"

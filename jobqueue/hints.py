"""What annotations stand for, one by one: only those that are asked for have to mean something."""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from jobqueue.errors import DeclarationError

__all__ = ["class_hints", "function_hints", "return_hint"]


def function_hints(function: Callable[..., Any], names: Iterable[str], kind: str) -> dict[str, Any]:
    """Answer what the annotations of these parameters stand for; those that have one.

    Args:
        function: The function.
        names: The names of its parameters.
        kind: The name of the kind, for error messages.

    Raises:
        DeclarationError: One of them cannot be resolved.
    """
    given = function.__annotations__
    scope = function.__globals__
    return {name: _resolved(given[name], scope, {}, f"{kind}: parameter `{name}`") for name in names if name in given}


def class_hints(cls: type[Any], names: Iterable[str], kind: str) -> dict[str, Any]:
    """Answer what the annotations of these fields stand for, wherever in its base classes they are.

    Args:
        cls: The class.
        names: The names of its fields.
        kind: The name of the kind, for error messages.

    Raises:
        DeclarationError: One of them cannot be resolved.
    """
    hints: dict[str, Any] = {}
    for name in names:
        for base in cls.__mro__:
            given = vars(base).get("__annotations__", {})
            if name in given:
                scope = vars(sys.modules[base.__module__]) if base.__module__ in sys.modules else {}
                hints[name] = _resolved(given[name], scope, vars(base), f"{kind}: field `{name}`")
                break
    return hints


def return_hint(function: Callable[..., Any]) -> Any:
    """Answer what a function is annotated to return, or None where that means nothing here: nobody needs it to run."""
    try:
        return _evaluated(function.__annotations__.get("return"), function.__globals__, _declaring_locals())
    except Exception:  # noqa: BLE001 - it may name what a type checker alone knows, in whatever way
        return None


def _resolved(annotation: Any, scope: Mapping[str, Any], local: Mapping[str, Any], where: str) -> Any:
    try:
        try:
            return _evaluated(annotation, scope, local)
        except NameError:
            # Postponed annotations that speak of what is local to the function which declares the job.
            return _evaluated(annotation, scope, _declaring_locals())
    except NameError as error:
        raise DeclarationError(
            f"{where}: an annotation speaks of `{error.name}`, which is not known where the job is declared: "
            "import it there, not only under TYPE_CHECKING"
        ) from error
    except Exception as error:
        raise DeclarationError(f"{where}: the annotation {annotation!r} cannot be read: {error}") from error


def _evaluated(annotation: Any, scope: Mapping[str, Any], local: Mapping[str, Any]) -> Any:
    holder = SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, dict(scope), {**local}, include_extras=True)["it"]


def _declaring_locals() -> dict[str, Any]:
    """The local names of the code that called into this package."""
    frame = sys._getframe(1)  # noqa: SLF001 - the way that typing.NamedTuple and attrs take; inspect.stack reads files
    package = __name__.partition(".")[0] + "."
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(package):
        frame = frame.f_back
    return dict(frame.f_locals)

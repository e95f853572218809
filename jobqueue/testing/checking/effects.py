"""The effects of a world: methods that tell when they are called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final, TypeAlias

from jobqueue.names import suggestion
from jobqueue.testing.inline import TestingError

__all__ = ["Around", "NoSuchEffect", "call_text", "watch_effects"]

Around: TypeAlias = Callable[[str, str], AbstractContextManager[bool]]
"""Given an effect's name and the whole call; what is entered around the call answers whether to carry it out twice."""

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_MARK: Final = "_jobqueue_watched"


class NoSuchEffect(Exception):
    """The world has no method of this name."""


def call_text(name: str, args: Iterable[Any], kwargs: dict[str, Any]) -> str:
    """A call as it would be written: two calls with the same text count as the same.

    The text and not the arguments, because a job may change what it passed. Addresses are left out: they differ from run to
    run.
    """
    parts = [*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())]
    return _ADDRESS.sub("", f"{name}({', '.join(parts)})")


def watch_effects(world: Any, effects: Iterable[str], around: Around) -> None:
    """Have calls of these methods go through ``around``, for this object alone.

    Args:
        world: The object. What it calls of itself is seen as well, which it would not be behind a proxy.
        effects: The names; ``mailer.send`` is the method ``send`` of its attribute ``mailer``.
        around: See `Around`.

    Raises:
        NoSuchEffect: There is no such method.
        TestingError: The object was watched before, so it is not a new one.
    """
    for effect in effects:
        *path, name = effect.split(".")
        holder = world
        for part in path:
            holder = _attribute(holder, part)
        method = _attribute(holder, name)
        if not callable(method):
            raise NoSuchEffect(f"{effect} is no method: it is {method!r}")
        if getattr(method, _MARK, None) is True:  # not hasattr: a mock has everything
            raise TestingError(
                f"world() answered an object that it had answered before ({type(world).__name__}): every history needs a "
                "new one"
            )
        watched = (_watched_coroutine if inspect.iscoroutinefunction(method) else _watched)(method, effect, around)
        functools.update_wrapper(watched, method, updated=())
        vars(watched)[_MARK] = True
        _replace(holder, name, watched)


def _attribute(holder: Any, name: str) -> Any:
    found = getattr(holder, name, None)
    if found is None:
        known = [known for known in dir(holder) if not known.startswith("_")]
        raise NoSuchEffect(f"{type(holder).__name__} has no {name!r}{suggestion(name, known)}")
    return found


def _watched(method: Callable[..., Any], effect: str, around: Around) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        with around(effect, call_text(effect, args, kwargs)) as twice:
            result = method(*args, **kwargs)
            if twice:
                with contextlib.suppress(Exception):  # an effect may refuse to be carried out again
                    method(*args, **kwargs)
            return result

    return watched


def _watched_coroutine(method: Callable[..., Any], effect: str, around: Around) -> Callable[..., Any]:
    async def watched(*args: Any, **kwargs: Any) -> Any:
        with around(effect, call_text(effect, args, kwargs)) as twice:
            result = await method(*args, **kwargs)
            if twice:
                with contextlib.suppress(Exception):
                    await method(*args, **kwargs)
            return result

    return watched


def _replace(holder: Any, name: str, watched: Callable[..., Any]) -> None:
    with contextlib.suppress(AttributeError):
        setattr(holder, name, watched)
        return
    # A frozen object, or one with slots, takes a subclass that differs in this method alone.
    cls = type(holder)
    method = staticmethod(watched)
    object.__setattr__(holder, "__class__", type(cls.__name__, (cls,), {"__slots__": (), name: method}))

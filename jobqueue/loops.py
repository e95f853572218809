"""The loops that drive a generator which yields what it asks for, and is sent the answer or thrown the error.

What a request means is one function, which is handed to the loop; the loops differ only in how an answer comes: from a call,
from an ``await``, or by asking further up, as a generator itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

__all__ = ["adrive", "drive", "within"]

R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")


def drive(asking: Generator[R, Any, T], answer_to: Callable[[R], Any]) -> T:
    """Go through to the end, blocking the calling thread; answers what the generator returns."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            request = asking.send(answer) if error is None else asking.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = answer_to(request)
        except Exception as raised:  # noqa: BLE001 - the generator's to deal with, also a reply that nobody thought of
            error = raised


async def adrive(asking: Generator[R, Any, T], answer_to: Callable[[R], Awaitable[Any]]) -> T:
    """Go through to the end on the running event loop; see `drive`."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            request = asking.send(answer) if error is None else asking.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = await answer_to(request)
        except Exception as raised:  # noqa: BLE001 - see `drive`
            error = raised


def within(asking: Generator[R, Any, T], answer_to: Callable[[R], Generator[S, Any, Any]]) -> Generator[S, Any, T]:
    """Go through to the end as a part of another generator, which asks something else to find the answers; see `drive`."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            request = asking.send(answer) if error is None else asking.throw(error)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        answer, error = None, None
        try:
            answer = yield from answer_to(request)
        except Exception as raised:  # noqa: BLE001 - see `drive`
            error = raised

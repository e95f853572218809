"""A runner beside an application, on the application's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from jobqueue.errors import DeclarationError

__all__ = ["Background", "beside", "on_a_thread", "refuse_loop"]

T = TypeVar("T")


def refuse_loop() -> None:
    """Refuse to run a runner where an event loop runs, which would stand still until the runner ends.

    Raises:
        DeclarationError: One runs on this thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise DeclarationError(
        "run() cannot be called inside of a running event loop, which would stand still: use `await runner.arun()` or "
        "`async with runner.background()`"
    )


class Background(AbstractAsyncContextManager[T]):
    """The block of `beside`, which hands out a value; who writes ``with`` instead of ``async with`` is told so."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None], value: T) -> None:
        self._block = beside(run, stop)
        self._value = value

    async def __aenter__(self) -> T:
        await self._block.__aenter__()
        return self._value

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)

    if not TYPE_CHECKING:  # for a type checker there is no other block

        def __enter__(self) -> None:
            raise DeclarationError("background() runs on an event loop: write `async with runner.background():`")

        def __exit__(self, *_: object) -> None: ...


async def on_a_thread(work: Callable[[], object], stop: Callable[[], None]) -> None:
    """Await the end of something that works on a thread; who is cancelled meanwhile stops it and awaits it all the same.

    Args:
        work: What to do there, with the context variables of here; what it raises is raised here.
        stop: Makes it end.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - it is raised again where it was awaited
            loop.call_soon_threadsafe(_settle, ended, error)
        else:
            loop.call_soon_threadsafe(_settle, ended, None)

    threading.Thread(target=copy_context().run, args=(run,), name="jobqueue-pump", daemon=True).start()
    try:
        await asyncio.shield(ended)
    except asyncio.CancelledError:
        stop()
        # Some cancel again and again until a task has ended (anyio does): it is still running for all that.
        while not ended.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([ended])
        ended.result()
        raise


def _settle(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)


@contextlib.asynccontextmanager
async def beside(run: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], None]) -> AsyncIterator[None]:
    """Run something for the length of an ``async with`` block; it is stopped on the way out, and awaited.

    If it fails, the body is cancelled, as by an `asyncio.TaskGroup`, and its error is raised. Rejected: such a group. It
    wraps an error that is alone, so that nobody could catch it by its class, and before Python 3.13 it leaves the task of
    the body marked as cancelled when the error comes while the group waits.

    Args:
        run: What to run.
        stop: Makes it end.
    """
    body = asyncio.current_task()
    assert body is not None, "it is entered on an event loop"
    is_over = has_cancelled = False
    running = asyncio.create_task(run(), name="jobqueue-runner")

    def ended(_: asyncio.Task[None]) -> None:
        nonlocal has_cancelled
        if not is_over and _failure(running) is not None:
            has_cancelled = True
            body.cancel()

    running.add_done_callback(ended)
    error: BaseException | None = None
    try:
        yield
    except BaseException as raised:  # noqa: BLE001 - it is raised again
        error = raised
    is_over = True
    if has_cancelled and body.uncancel() == 0 and isinstance(error, asyncio.CancelledError):
        error = None
    if not running.done():
        stop()
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as raised:
            error = error or raised
    failure = _failure(running)
    if failure is not None and error is not None and not isinstance(error, asyncio.CancelledError):
        raise BaseExceptionGroup("the body failed, and so did the runner beside it", [error, failure])
    if (first := failure or error) is not None:
        _raise(first)


def _failure(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _raise(error: BaseException) -> None:
    """Raise it with the context that it has, and not with what the body was cancelled by."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context

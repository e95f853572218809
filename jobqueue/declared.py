"""Where a kind is found again in this process: by those who check a job, by worker processes, and by `pickle`.

A call, and a function with options, are pickled like the function itself: by the name of what was declared. Not by methods
of those classes, because only here it is known where to find that again.
"""

from __future__ import annotations

import copyreg
import importlib
import sys
import weakref
from typing import TYPE_CHECKING, Any, Final

from jobqueue.declaring import BoundFunction, JobFunction
from jobqueue.errors import UnknownJob
from jobqueue.job import Call, Job, Kind
from jobqueue.names import is_importable, origin_of
from jobqueue.options import Options
from jobqueue.words import described

if TYPE_CHECKING:
    from jobqueue.queue import JobQueue

__all__ = ["QUEUES", "declared_on"]

QUEUES: Final[weakref.WeakSet[JobQueue]] = weakref.WeakSet()
"""All there are in this process: where a worker process, and who checks a job, finds the one that has its kind."""


def declared_on(job: Job | Call[Any]) -> JobQueue:
    """The `JobQueue` on which the kind of a job is declared.

    Raises:
        UnknownJob: There is none any more.
        TypeError: It is no job, or a class that is registered on several.
    """
    if isinstance(job, Call):
        found = [jobs for jobs in QUEUES if jobs.registry.get(job.kind.name) is job.kind]
    elif isinstance(job, Job):
        found = [jobs for jobs in QUEUES if jobs.registry.of_class(type(job)) is not None]
    else:
        raise TypeError(f"{described(job)} is no job: pass a function's .call(…), or an instance of a registered class")
    if not found:
        what = f"the kind {job.kind.name!r}" if isinstance(job, Call) else type(job).__qualname__
        raise UnknownJob(f"{what} is not declared on any JobQueue, or was declared anew since this job was made")
    if len(found) > 1:
        raise TypeError(
            f"{type(job).__qualname__} is registered on {len(found)} JobQueues: pass jobs.call_of(…) of the one you mean"
        )
    return found[0]


# ------------------------------------------------------------------------------------------------------------- pickling


def _kinds(module: str, qualname: str, name: str) -> list[Kind[Any]]:
    known = (queue.registry.get(name) for queue in list(QUEUES))
    found = [kind for kind in known if kind is not None and origin_of(kind.target) == (module, qualname)]
    if len(found) < 2 or module not in sys.modules:
        return found
    # Of a module that was imported again, what it declared before may still be there.
    things = list(vars(sys.modules[module]).values())
    current = [thing.kind for thing in things if isinstance(thing, JobFunction)]
    return [kind for kind in found if kind in current or any(kind.target is thing for thing in things)]


def _found_again(module: str, qualname: str, name: str) -> Kind[Any]:
    """The kind of this name that importing its module declares.

    Raises:
        UnknownJob: There is none, or several `JobQueue` have one.
    """
    if not _kinds(module, qualname, name):
        importlib.import_module(module)
    found = _kinds(module, qualname, name)
    if len(found) != 1:
        raise UnknownJob(f"{len(found)} JobQueues know {name!r}, declared as {qualname} in {module}: it has to be one")
    return found[0]


def _pickled_kind(kind: Kind[Any]) -> tuple[Any, ...]:
    if not is_importable(kind.target):
        raise TypeError(
            f"a call of {kind.name!r} cannot be pickled, since no other process can find what declares it: declare it at "
            "the top of a module that is in a file"
        )
    module, qualname = origin_of(kind.target)
    found = _kinds(module, qualname, kind.name)
    if len(found) != 1 or found[0] is not kind:
        raise TypeError(
            f"a call of {kind.name!r} cannot be pickled: it was declared anew since, or is declared on several JobQueues"
        )
    return _found_again, (module, qualname, kind.name)


def _bound_again(kind: Kind[Any], options: Options) -> BoundFunction[..., Any]:
    return BoundFunction(next(queue for queue in QUEUES if queue.registry.get(kind.name) is kind), kind, options)


def _pickled_bound(function: BoundFunction[..., Any]) -> tuple[Any, ...]:
    return _bound_again, (function.kind, function._options)  # noqa: SLF001 - its other half


copyreg.pickle(Kind, _pickled_kind)
copyreg.pickle(BoundFunction, _pickled_bound)

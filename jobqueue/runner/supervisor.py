"""`Supervisor`: keeps runner processes running, and hands back the jobs of one that died.

One thread looks after the processes; it sleeps until a signal comes, a runner says its name or something is due. Another
hands jobs back, because the storage may be away for as long as it likes and processes have to be looked after meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from queue import SimpleQueue
from types import FrameType
from typing import Final

import attrs

from jobqueue.clock import Moment, monotonic_s
from jobqueue.drive import run
from jobqueue.errors import JobQueueError, StorageError
from jobqueue.logs import Careful, counted
from jobqueue.queue import JobQueue
from jobqueue.runner.aftermath import settle
from jobqueue.runner.journal import tell_dead
from jobqueue.runner.signals import STOPS, StopRequests, how_ended
from jobqueue.transitions import longest_record

__all__ = ["Supervisor"]

_log: Final = Careful("jobqueue.supervisor")

SIGNALS: Final = (*STOPS, signal.SIGCHLD)
NAMES: Final = re.compile(rb"([0-9A-Za-z-]{1,64}\n){0,1000}[0-9A-Za-z-]{0,64}")
"""What a runner says: a new name for each time that the storage has lost its data."""
LOOK_S: Final = 5.0
"""How often the processes are looked at although no signal came."""
LIVED_S: Final = 10.0
"""A process that lived so long did not die at once."""
PAUSE_FIRST_S: Final = 0.5
PAUSE_LONGEST_S: Final = 30.0
LATE_S: Final = 15.0
"""How long after the grace time a runner may take to leave: its last words, its threads, its interpreter."""
FOR_GOOD: Final = (2, 3)
"""Exit codes of runners that another start does not help: a command line or a declaration is wrong, the storage refused.

A runner waits for whatever passes by itself, so it leaves with 3 only where waiting does not help either, or in a burst.
"""
HAND_BACK_AGAIN_S: Final = 1.0
HAND_BACK_LOOK_S: Final = 0.05
"""How often to look whether jobs have been handed back, where a process waits for that."""
HAND_BACK_END_S: Final = 5.0
"""How long the supervisor's own end may wait for the storage to take jobs back."""


@attrs.define(eq=False)
class _Child:
    """A runner process.

    Attributes:
        slot: Its number, from 1.
        process: The process.
        line: The supervisor's end of its lifeline.
        started: When it was started, in seconds.
        said: What it has said: the names it claims under, a line each.
        told: When it was told to stop, None if it was not.
        is_ignored: It has said what is not a name, so that something else may speak for it: from then on nothing counts.
    """

    slot: int
    process: subprocess.Popen[bytes]
    line: socket.socket
    started: float
    said: bytes = b""
    told: float | None = None
    is_ignored: bool = False

    @property
    def names(self) -> list[bytes]:
        """The names it has claimed under."""
        return self.said.split(b"\n")[:-1]

    def hear(self) -> bool:
        """Take in what it has said; answers whether it may say more."""
        try:
            while not self.is_ignored and (more := self.line.recv(4096)):
                self.is_ignored = NAMES.fullmatch(self.said + more) is None
                if self.is_ignored:
                    _log.error("runner process %d, pid %d: says what is not a name", self.slot, self.process.pid)
                else:
                    self.said += more
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def stop(self, at: float) -> None:
        """Tell it to stop."""
        if self.told is None:
            self.told = at
            with contextlib.suppress(OSError):
                self.line.shutdown(socket.SHUT_WR)


@attrs.define(eq=False)
class _Slot:
    """A place for one process.

    Attributes:
        number: From 1.
        child: The process in it, None while it has to wait.
        deaths: How many in a row died at once.
        due: When (s) the next may be started.
        is_done: Its runner was to end by itself, and has.
    """

    number: int
    child: _Child | None = None
    deaths: int = 0
    due: float = 0.0
    is_done: bool = False


class Supervisor:
    """Runs a number of runner processes until SIGTERM or SIGINT.

    A runner that dies is started again, and its jobs are handed back at once: their runs have certainly ended with the
    process that this one has reaped. SIGHUP replaces the runners one after the other, unless it comes from a terminal, which
    means a stop; a runner is told to stop when its successor works.

    Args:
        jobs: The `JobQueue` of the runners, for the way to its storage.
        command: What starts a runner; ``--lifeline`` and a file descriptor are added to it.
        processes: How many runners.
        grace: The runners' grace time in seconds: some time after it one that does not leave is killed.
        burst: The runners end by themselves, and so does this when all have. One that dies is started again, once its jobs
            are handed back; there is nothing to reload.
        url: Where jobs are stored, if the command line says so: each runner is told.
        environment: That of the runners; by default that of this process.
    """

    def __init__(
        self,
        jobs: JobQueue,
        command: Sequence[str],
        processes: int,
        grace: float,
        *,
        burst: bool = False,
        url: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = list(command)
        self._url = (url or "").encode()
        self._environment = environment
        self._patience = grace + LATE_S
        self._slots = [_Slot(number) for number in range(1, processes + 1)]
        self._leaving: list[_Child] = []
        self._signals: deque[int] = deque()
        self._selector = selectors.DefaultSelector()
        self._requests = StopRequests()
        self._stopping = False
        self._code = 0
        self._has_worked = False
        self._turn: deque[_Slot] = deque()  # those whose process is to be replaced
        self._successor: _Child | None = None
        self._graves = _Graves(jobs)
        # SIGHUP: the end of a terminal stops what was started in it; without one it asks for a reload.
        self._hangup_stops = burst or (sys.stdin is not None and sys.stdin.isatty())
        self._burst = burst

    def run(self) -> int:
        """Supervise until told to stop; answers the exit code: 0 after a clean stop.

        To be called on the main thread, which handles the signals meanwhile. The first SIGTERM or SIGINT stops the
        runners, a second one kills them; 128 and its number is the answer then.
        """
        with self._handling_signals():
            while True:
                now = monotonic_s()
                self._heed(now)
                self._bury(now)
                self._keep(now)
                if self._is_over() and not self._children():
                    break
                for key, _ in self._selector.select(self._pause(now)):
                    key.data()
            self._graves.close(HAND_BACK_END_S)
        _log.info("stopped")
        return self._code

    # ------------------------------------------------------------------------------------------------------- signals

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        bell, ear = socket.socketpair()
        bell.setblocking(False)
        ear.setblocking(False)
        self._selector.register(ear, selectors.EVENT_READ, lambda: ear.recv(4096))
        before_bell = signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if number is not signal.SIGHUP or handler is not signal.SIG_IGN:  # `nohup`
                signal.signal(number, self._signalled)
        try:
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:  # what was not installed from Python cannot be again
                    signal.signal(number, handler)
            signal.set_wakeup_fd(before_bell)
            self._selector.close()
            bell.close()
            ear.close()

    def _signalled(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)

    def _heed(self, now: float) -> None:
        while self._signals:
            number = signal.Signals(self._signals.popleft())
            if number is signal.SIGHUP and not self._hangup_stops:
                self._reload()
            elif number in STOPS:
                meaning = self._requests.take(number, now)
                if meaning == "hurry":
                    self._kill(number)
                elif meaning == "stop":
                    self._stop(number, now)

    def _reload(self) -> None:
        if not self._stopping and not self._turn:
            _log.info("replacing %d runner processes, one after the other", len(self._slots))
            self._turn.extend(self._slots)

    def _stop(self, number: signal.Signals, now: float) -> None:
        self._stopping = True
        self._turn.clear()
        _log.info(
            "%s: stopping %s; a second signal kills",
            number.name,
            counted(len(self._children()), "runner process", "es"),
        )
        for child in self._children():
            child.stop(now)

    def _kill(self, number: signal.Signals) -> None:
        _log.warning(
            "%s, the second signal: killing %s", number.name, counted(len(self._children()), "runner process", "es")
        )
        self._code = 128 + number
        for child in self._children():
            child.process.kill()

    # ----------------------------------------------------------------------------------------------------- processes

    def _children(self) -> list[_Child]:
        found = [slot.child for slot in self._slots if slot.child is not None] + self._leaving
        return found if self._successor is None else [*found, self._successor]

    def _start(self, slot: _Slot, now: float) -> _Child | None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [*self._command, "--lifeline", str(theirs.fileno())]
            try:
                # A group of their own: Ctrl-C in a terminal is for the supervisor, which tells them to stop. A process in
                # the background must not read from the terminal either.
                process = subprocess.Popen(  # noqa: S603 - the very program that is running
                    command,
                    pass_fds=(theirs.fileno(),),
                    process_group=0,
                    stdin=subprocess.DEVNULL,
                    env=self._environment,
                )
            except OSError as error:
                ours.close()
                _log.error("runner process %d cannot be started: %s", slot.number, error)
                return None
        with contextlib.suppress(OSError):  # it has ended already
            ours.sendall(self._url + b"\n")
        ours.setblocking(False)
        child = _Child(slot.number, process, ours, now)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(child))
        _log.info("runner process %d: started, pid %d", slot.number, process.pid)
        return child

    def _hear(self, child: _Child) -> None:
        if not child.hear():
            self._selector.unregister(child.line)
        if child.names:
            self._has_worked = True

    def _bury(self, now: float) -> None:
        """Take note of the processes that have ended, and hand back what they held."""
        for child in self._children():
            code = child.process.poll()
            if code is None:
                continue
            child.hear()
            with contextlib.suppress(KeyError):  # it was heard to the end before
                self._selector.unregister(child.line)
            child.line.close()
            is_well = code == 0 and (self._burst or child.told is not None)
            level = logging.INFO if is_well else logging.WARNING
            _log.log(level, "runner process %d, pid %d: %s", child.slot, child.process.pid, how_ended(code))
            for name in child.names:
                self._graves.put(name)
            self._replace(child, code, now)

    def _is_over(self) -> bool:
        return self._stopping or all(slot.is_done for slot in self._slots)

    def _replace(self, child: _Child, code: int, now: float) -> None:
        if child in self._leaving:
            self._leaving.remove(child)
            return
        if child is self._successor:
            self._successor = None
            if not self._stopping:
                self._give_up_turn()
            return
        slot = self._slots[child.slot - 1]
        slot.child = None
        slot.is_done = self._burst and code == 0
        if self._stopping or slot.is_done:
            return
        if code in FOR_GOOD and not self._has_worked:
            self._code = code
            self._stop(signal.SIGTERM, now)
            return
        slot.deaths = 0 if now - child.started >= LIVED_S else slot.deaths + 1
        self._postpone(slot, now)

    def _give_up_turn(self) -> None:
        """What was deployed does not start. What runs goes on."""
        self._turn.clear()
        _log.error("the new runner process did not start: the others are kept as they are")

    @staticmethod
    def _postpone(slot: _Slot, now: float) -> None:
        # The first is replaced at once: a process may die of one bad job.
        pause = 0.0 if slot.deaths < 2 else min(PAUSE_FIRST_S * 2.0 ** min(slot.deaths - 2, 10), PAUSE_LONGEST_S)
        slot.due = now + pause
        if pause:
            _log.warning("runner process %d died at once %d times: the next in %.1f s", slot.number, slot.deaths, pause)

    def _keep(self, now: float) -> None:
        """Start what has to be started, go on with a rolling restart, kill what does not leave."""
        for child in self._children():
            if child.told is not None and now >= child.told + self._patience:
                _log.error("runner process %d, pid %d: does not leave; killing it", child.slot, child.process.pid)
                child.process.kill()
        if self._stopping:
            return
        for slot in self._vacant():
            if now >= slot.due and not self._has_to_wait():
                slot.child = self._start(slot, now)
                if slot.child is None:
                    slot.deaths += 1
                    self._postpone(slot, now)
        if self._successor is not None and self._successor.names:
            slot = self._slots[self._successor.slot - 1]
            if slot.child is not None:
                slot.child.stop(now)
                self._leaving.append(slot.child)
            slot.child, self._successor = self._successor, None
        if self._turn and self._successor is None and not self._leaving:
            self._successor = self._start(self._turn.popleft(), now)
            if self._successor is None:
                self._give_up_turn()

    def _pause(self, now: float) -> float:
        due = now + LOOK_S
        for child in self._children():
            if child.told is not None:
                due = min(due, child.told + self._patience)
        if not self._stopping:
            soonest = now + HAND_BACK_LOOK_S if self._has_to_wait() else now
            due = min([due, *(max(slot.due, soonest) for slot in self._vacant())])
        return max(0.0, due - now)

    def _vacant(self) -> list[_Slot]:
        """Those that need a process."""
        return [slot for slot in self._slots if slot.child is None and not slot.is_done]

    def _has_to_wait(self) -> bool:
        """Whether the next process would leave before the jobs are handed back that it is to run."""
        return self._burst and self._graves.is_busy


class _Graves:
    """The thread that hands back the jobs of dead runners."""

    def __init__(self, jobs: JobQueue) -> None:
        self._jobs = jobs
        self._names: SimpleQueue[bytes | None] = SimpleQueue()
        self._over = threading.Event()
        self._taken = self._settled = 0  # how many names; each is counted by one thread
        self._thread = threading.Thread(target=self._work, name="jobqueue-graves", daemon=True)
        self._thread.start()

    def put(self, name: bytes) -> None:
        """A runner of this name is dead."""
        self._taken += 1
        self._names.put(name)

    @property
    def is_busy(self) -> bool:
        """Whether something is not handed back yet."""
        return self._taken != self._settled

    def close(self, seconds: float) -> None:
        """Wait for what is left to be handed back, for some seconds: then it comes back when the leases end."""
        self._names.put(None)
        self._thread.join(timeout=seconds)
        self._over.set()

    def _work(self) -> None:
        while (name := self._names.get()) is not None:
            while not self._over.is_set() and not self._settle(name):
                self._over.wait(HAND_BACK_AGAIN_S)
            self._settled += 1

    def _settle(self, name: bytes) -> bool:
        access = self._jobs.access
        try:
            opened = access.opened()
            clock = opened.backend.clock
            rescued = run(
                settle(
                    access.keys, name, lambda: Moment(clock.now(), clock.monotonic()),
                    longest_record(self._jobs.max_payload),
                ),
                opened.storage(), clock,
            )  # fmt: skip
        except JobQueueError as error:
            if isinstance(error, StorageError) and not error.passes:
                _log.warning(
                    "the jobs of runner %s cannot be handed back, they run again when their leases have ended: %s",
                    name.decode(), error,
                )  # fmt: skip
                return True
            _log.warning("the jobs of runner %s could not be handed back, trying again: %s", name.decode(), error)
            return False
        except Exception:  # noqa: BLE001 - the next runner's jobs wait for this thread
            _log.exception(
                "handing back the jobs of runner %s met something unexpected; their leases will end", name.decode()
            )
            return True
        dead = sum(job.dead for job in rescued)
        if rescued:
            _log.warning(
                "runner %s is gone: %s returned to their queues and will run again, %d went to dead",
                name.decode(), counted(len(rescued) - dead, "job"), dead,
            )  # fmt: skip
            tell_dead(_log, rescued)
        return True

"""A child that is forked while another thread opens the storage opens one of its own."""

from __future__ import annotations

import os
import signal
import threading
import warnings

import pytest

from jobqueue import JobQueue
from jobqueue.backend import Backend, MemoryBackend

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def test_a_fork_during_the_first_use() -> None:
    jobs = JobQueue("memory://", namespace="test")
    opening, forked = threading.Event(), threading.Event()
    parent = os.getpid()

    def slowly() -> Backend:
        if os.getpid() == parent:
            opening.set()
            assert forked.wait(10)
        return MemoryBackend()

    jobs.access._open_backend = slowly
    thread = threading.Thread(target=jobs.counts)
    thread.start()
    assert opening.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: that is what this is about
        child = os.fork()
    if child == 0:
        signal.alarm(5)
        jobs.counts()
        os._exit(0)
    forked.set()
    thread.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0

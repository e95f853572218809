"""A test that fails whatever the library does; not collected by itself. A variant must not count as caught by it."""

from __future__ import annotations


def test_that_never_passes() -> None:
    print("FAILED test_inner.py::test_of_a_run_that_this_one_started")
    raise AssertionError


def test_that_always_passes() -> None:
    pass

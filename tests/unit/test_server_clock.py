"""The server's time as it is told here: never ahead, and never wrong for long."""

from __future__ import annotations

import pytest

from jobqueue import clock as clocks
from jobqueue.clock import ServerClock


class Link:
    """A server behind a link: what passes here, what it is there, and how long a question takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, there: float = 0.0, back: float = 0.0) -> None:
        self.local = 0.0
        self.ahead = 1_000_000.0
        self.there, self.back = there, back
        self.asked = 0
        monkeypatch.setattr(clocks, "monotonic_ms", lambda: self.local)
        self.clock = ServerClock(lambda _: self._sample())

    def _sample(self) -> int:
        self.asked += 1
        self.local += self.there
        told = int(self.local + self.ahead)
        self.local += self.back
        return told

    @property
    def error(self) -> float:
        """By how much the clock is ahead of the server's (ms)."""
        return self.clock.now() - (self.local + self.ahead)

    def refresh(self) -> None:
        """Look at the server's clock a while later."""
        self.local += 5_000
        self.clock.refresh(0)


@pytest.mark.parametrize("set_by", [-3_600_000, 45_000])
@pytest.mark.parametrize("way", [1.0, 75.0])
def test_a_servers_clock_that_was_set_is_followed(monkeypatch: pytest.MonkeyPatch, way: float, set_by: float) -> None:
    link = Link(monkeypatch, there=way, back=way)
    link.refresh()
    link.ahead += set_by
    link.refresh()
    assert -2 * way - 1 <= link.error <= 0


def test_a_clock_that_drifts_behind_a_slow_link_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(monkeypatch, there=80, back=80)
    for _ in range(200):
        link.ahead -= 2  # the clock here runs fast
        link.refresh()
    assert -161 <= link.error <= 81


def test_one_slow_answer_does_not_replace_what_is_known_better(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(monkeypatch, there=0.5, back=0.5)
    link.refresh()
    link.back = 3_000
    asked = link.asked
    link.refresh()
    assert link.asked - asked == clocks.TRIES
    assert -2 <= link.error <= 0

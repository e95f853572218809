"""The sorted set behaves as a plain dict sorted at every step."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.storage import sortedset
from jobqueue.storage.sortedset import SortedSet

MEMBERS = st.sampled_from([b"", b"\x00", b"a", b"a\x00", b"b", b"\xff", *(b"%d" % n for n in range(12))])
SCORES = st.integers(-2, 2)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(MEMBERS, SCORES)),
        st.tuples(st.just("remove"), st.lists(MEMBERS)),
    ),
    max_size=20,
)


@pytest.fixture(autouse=True)
def _short_runs() -> object:
    """Runs of two entries, so that few members already fill many of them."""
    with mock.patch.object(sortedset, "_RUN", 2):
        yield


@given(steps=STEPS, before=SCORES, limit=st.integers(0, 20), cursor=st.tuples(SCORES, MEMBERS))
def test_it_is_sorted_at_every_step(
    steps: list[tuple[str, dict[bytes, int] | list[bytes]]], before: int, limit: int, cursor: tuple[int, bytes]
) -> None:
    entries, model = SortedSet(), dict[bytes, int]()
    for _, members in steps:
        copy, unchanged = entries.copy(), list(entries)
        if isinstance(members, dict):
            entries.add(members)
            model.update(members)
        else:
            entries.remove(members)
            for member in members:
                model.pop(member, None)
        expected = sorted((score, member) for member, score in model.items())

        assert list(entries) == expected
        assert all(0 < len(run) <= 4 for run in entries._runs), "a change costs no more where there are many members"
        assert (len(entries), entries.scores) == (len(model), model)
        assert list(copy) == unchanged
        assert entries.due(before, limit) == [member for score, member in expected if score <= before][:limit]
        assert list(entries.after(cursor)) == [entry for entry in expected if entry > cursor]
        if model:
            assert entries.first() == expected[0]

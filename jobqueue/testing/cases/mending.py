"""Walks over ids, where they are, and what is mended (rules 4, 6, 8 and 10).

What these cases break, no operation can: so operations are smuggled past their checks, as something foreign would write.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jobqueue.storage.ops import (
    CLAIMS,
    Found,
    HashDelete,
    HashKey,
    HashSet,
    Head,
    IdPage,
    Ids,
    ListKey,
    ListPush,
    Mend,
    Move,
    Op,
    Put,
    SetAdd,
    SetKey,
    SetRemove,
    Stamp,
    These,
    Unread,
    Where,
)
from jobqueue.testing.cases.bench import NOW, Bench, CaseFailed, case, record

__all__: list[str] = []


def _smuggle(t: Bench, op: Op, key: ListKey | SetKey | HashKey) -> None:
    kind = "list" if isinstance(key, ListKey) else "set" if isinstance(key, SetKey) else "hash"
    msgspec.structs.force_setattr(op, kind, key)
    t.do(op)


def _lose(t: Bench, id_: bytes, place: SetKey) -> None:
    _smuggle(t, SetRemove(t.index, (id_,)), place)


def _repeat(t: Bench, id_: bytes, place: ListKey | SetKey) -> None:
    if isinstance(place, ListKey):
        _smuggle(t, ListPush(t.log, (id_,)), place)
    else:
        _smuggle(t, SetAdd(t.index, {id_: NOW}), place)


def _claim(t: Bench, id_: bytes) -> None:
    _smuggle(t, HashSet(t.notes, {id_: b"somebody"}), HashKey(t.scope, CLAIMS))


def _page(t: Bench, limit: int, after: bytes | None = None) -> IdPage:
    page = t.read(Ids(t.notes, limit, after))
    if not isinstance(page, IdPage):
        raise CaseFailed(f"Ids answers {page!r:.200}, no IdPage")
    return page


def _found(t: Bench, *ids: bytes) -> Sequence[tuple[bool, tuple[str, ...], bool]]:
    answer = t.read(Where(t.scope, ids, search=True))
    assert isinstance(answer, tuple)
    return [(each.stored, each.places, each.claim) for each in answer if isinstance(each, Found)]


@case(10)
def a_walk_over_ids_misses_none_that_stayed(t: Bench) -> None:
    stay = {b"stay %d \x00\xff" % number for number in range(1500)} | {b""}
    go = [b"go %d" % number for number in range(1500)]
    t.check(_page(t, 10), IdPage((), None), "ids of a hash that does not exist")
    t.do(HashSet(t.notes, dict.fromkeys([*stay, *go], b"value" * 20)))
    seen: set[bytes] = set()
    after: bytes | None = None
    for turn in range(10_000):
        page = _page(t, 50, after)
        if len(page.ids) > 1000:
            raise CaseFailed(f"of {len(stay) + len(go)} ids, {len(page.ids)} came at once, where about 50 were wanted")
        seen.update(page.ids)
        after = page.next
        if after is None:
            break
        # Many go and others come, as on a busy queue: what is stored is moved about.
        t.do(
            HashDelete(t.notes, tuple(go[turn * 60 : turn * 60 + 60])),
            HashSet(t.notes, {b"new %d" % turn: b"value" * 20}),
        )
    t.check(after, None, "the cursor after 10,000 pages")
    t.check(sorted(stay - seen), [], "ids that stayed and were missed")
    unknown = [id_ for id_ in seen if not id_.startswith((b"stay ", b"go ", b"new ")) and id_]
    t.check(unknown, [], "ids that were never there")


@case(6)
def every_place_of_an_id_is_found(t: Bench) -> None:
    t.put(Put(t.ready, {b"r": record(b"r"), b"w": record(b"w")}))
    t.put(Put(t.waiting, {b"d": record(b"d")}, NOW))
    t.put(Put(t.dead, {b"x": record(b"x")}, NOW))
    t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(b"runner", 5000, NOW)))
    t.check(
        _found(t, b"r", b"w", b"d", b"x", b"none"),
        [
            (True, ("working",), True),
            (True, ("ready",), False),
            (True, ("waiting",), False),
            (True, ("dead",), False),
            (False, (), False),
        ],
        "where five ids are",
    )
    for place in (t.waiting, t.ready, t.ready, t.working, t.dead):
        _repeat(t, b"w", place)
    _lose(t, b"d", t.waiting)
    _repeat(t, b"none", t.ready)
    t.check(
        _found(t, b"w", b"d", b"none"),
        [
            (True, ("waiting", "ready", "ready", "working", "dead"), False),
            (True, (), False),
            (False, ("ready",), False),
        ],
        "where broken ids are",
    )
    t.check(
        t.read(Where(t.scope, (b"w", b"none"))),
        (Found(True, ("waiting", "working", "dead"), False), Found(False, (), False)),
        "where they are beside the list",
    )


@case(6)
def what_is_broken_is_mended(t: Bench) -> None:
    t.put(Put(t.waiting, {id_: record(id_) for id_ in (b"lost", b"two", b"thrice")}, NOW))
    _lose(t, b"lost", t.waiting)
    _claim(t, b"lost")
    _repeat(t, b"two", t.working)
    _lose(t, b"thrice", t.waiting)
    for id_ in (b"gone", b"thrice", b"thrice", b"thrice", b"stays"):
        _repeat(t, id_, t.ready)
    for place in (t.working, t.dead):
        _repeat(t, b"gone", place)
    _claim(t, b"gone")
    new = {id_: record(id_, body=b"mended ") for id_ in (b"lost", b"two", b"thrice")}
    ops = [Mend(t.dead, id_, record(id_), new[id_], NOW + index) for index, id_ in enumerate(new)]
    t.check(t.do(*ops, Mend(t.dead, b"gone", None)), (1, 1, 1, 1), "what is answered of four broken ids")
    dead = [(b"lost", NOW), (b"two", NOW + 1), (b"thrice", NOW + 2)]
    t.check(t.state(), {"ready": [b"stays"], "dead": dead, "records": dict(sorted(new.items()))}, "all there is")


@case(6)
def what_is_whole_is_not_mended(t: Bench) -> None:
    t.put(Put(t.ready, {b"r": record(b"r"), b"w": record(b"w")}))
    t.put(Put(t.waiting, {b"d": record(b"d")}, NOW))
    t.put(Put(t.dead, {b"x": record(b"x")}, NOW))
    t.move(Move(t.ready, t.working, Head(1, 1000), NOW, stamp=Stamp(b"runner", 5000, NOW)))
    ids = (b"r", b"w", b"d", b"x")

    def mend() -> None:
        ops = [Mend(t.dead, id_, record(id_), b"mended", NOW) for id_ in ids]
        t.check(t.do(*ops, Mend(t.dead, b"none", None)), (0, 0, 0, 0, 0), "what is answered of whole ids")

    t.unchanged(mend, "whole ids are mended")
    _claim(t, b"d")
    before = t.places()
    t.check(t.do(Mend(t.dead, b"d", record(b"d"), b"mended", NOW)), (1,), "a claim of nobody is taken away")
    t.check(t.places(), before, "places of a job that had a claim of nobody")
    t.check(_found(t, b"d"), [(True, ("waiting",), False)], "a job that had a claim of nobody")


@case(6)
def what_is_too_long_to_be_read_is_mended_by_its_size(t: Bench) -> None:
    t.put(Put(t.waiting, {b"a": record(b"a")}, NOW))
    _lose(t, b"a", t.waiting)
    size = len(record(b"a"))
    ops = [
        Mend(t.dead, id_, Unread(many), b"not this", 7) for id_, many in ((b"a", size + 1), (b"none", 0), (b"a", size))
    ]
    t.check(t.do(*ops), (0, 0, 1), "one of another length, one without a record, and this one")
    t.check(t.state(), {"dead": [(b"a", 7)], "records": {b"a": record(b"a")}}, "its record stays as it is")


@case(8)
def only_what_was_seen_is_mended(t: Bench) -> None:
    t.put(Put(t.waiting, {id_: record(id_) for id_ in (b"a", b"b")}, NOW))
    for id_ in (b"a", b"b"):
        _lose(t, id_, t.waiting)
    mend = Mend(t.dead, b"a", record(b"a"), record(b"a", body=b"mended "), NOW)

    def others() -> None:
        t.check(
            t.do(
                Mend(t.dead, b"a", record(b"a", body=b"other "), b"", NOW),
                Mend(t.dead, b"a", None, b"", NOW),
                Mend(t.dead, b"gone", record(b"gone"), b"", NOW),
            ),
            (0, 0, 0),
            "what is answered where something else was seen",
        )

    t.unchanged(others, "something else was seen")
    t.check(t.do(mend), (1,), "mended once")
    t.unchanged(lambda: t.check(t.do(mend), (0,), "mended twice"), "mended twice")
    t.move(Move(t.dead, t.ready, These((b"a",))))
    t.unchanged(lambda: t.do(mend), "a late mending of a job that is ready again")
    t.move(Move(t.ready, None, Head(1, 1000)))
    t.unchanged(lambda: t.do(mend), "a late mending of a job that has ended")

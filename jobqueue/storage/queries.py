"""What every query answers, from the contents of a storage in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import nsmallest
from itertools import islice
from typing import Final

from jobqueue.storage.contents import Contents, full_name
from jobqueue.storage.ops import (
    CLAIMS,
    COUNTERS,
    LONGEST_CLAIM,
    RECORDS,
    Answer,
    Fields,
    Found,
    HashKey,
    Holder,
    IdPage,
    Ids,
    Kept,
    ListKey,
    Match,
    Matched,
    Page,
    Peek,
    Place,
    Query,
    Records,
    ScopePage,
    Scopes,
    Score,
    SetKey,
    Sizes,
    Where,
)
from jobqueue.storage.sortedset import SortedSet
from jobqueue.storage.within import read, within

__all__ = ["answer"]

_SET_PLACES: Final[tuple[Place, ...]] = ("waiting", "working", "dead")


def answer(contents: Contents, query: Query) -> Answer:
    """Answer one query.

    Raises:
        StorageRefused: A key exists as another kind.
    """
    match query:
        case Peek(key, start, limit):
            contents.check_kinds((key,))
            return tuple(islice(contents.lists.get(key.full, ()), start, start + limit))
        case Page():
            return _page(contents, query)
        case Records():
            return _kept(contents, query)
        case Sizes(keys):
            return tuple([contents.size(each) for each in keys])
        case Fields(key, fields, most):
            contents.check_kinds((key,))
            stored = contents.hashes.get(key.full, {})
            wanted = sorted(stored if fields is None else fields)
            found = {field: stored[field] for field in wanted if field in stored}
            return {field: value for field, value in found.items() if most is None or len(value) <= most}
        case Holder(key):
            contents.check_kinds((key,))
            return contents.locks.get(key.full)
        case Scopes(namespace):
            first = full_name(f"{namespace}:", "").split("}")[0]
            named = [name[1:].split("}:") for name in contents.hashes if name.startswith(first)]
            return ScopePage(tuple(sorted({scope for scope, key in named if key in (RECORDS, COUNTERS)})), b"")
        case Ids(key, limit, after):
            contents.check_kinds((key,))
            rest = contents.hashes.get(key.full, {})
            page = nsmallest(limit, rest if after is None else [field for field in rest if field > after])
            return IdPage(tuple(page), page[-1] if len(page) == limit else None)
        case Where(scope, of, search):
            return _found(contents, scope, of, search)
        case Match():
            return _matched(contents, query)


def _page(contents: Contents, query: Page) -> Answer:
    contents.check_kinds((query.set,))
    entries = contents.sets.get(query.set.full, SortedSet())
    page = islice(entries if query.after is None else entries.after(query.after), query.limit)
    return tuple([(member, score) for score, member in page if query.before is None or score <= query.before])


def _kept(contents: Contents, query: Records) -> Answer:
    scope = query.scope
    sets = [SetKey(scope, place) for place in _SET_PLACES]
    contents.check_kinds((HashKey(scope, RECORDS), HashKey(scope, CLAIMS), *sets))
    records = contents.hashes.get(full_name(scope, RECORDS), {})
    claims = contents.hashes.get(full_name(scope, CLAIMS), {})
    places: list[tuple[Place, dict[bytes, Score]]] = [
        (place, contents.sets[key.full].scores)
        for place, key in zip(_SET_PLACES, sets, strict=True)
        if key.full in contents.sets
    ]
    kept: list[Kept | None] = []
    for id_ in query.ids if query.max_bytes is None else within(query.ids, query.max_bytes, records):
        record = records.get(id_)
        if record is None:
            kept.append(None)
            continue
        place: Place = "ready"
        score: Score = 0
        for name, scores in places:
            if id_ in scores:
                place, score = name, scores[id_]
                break
        claim = claims.get(id_)
        if claim is not None and len(claim) > LONGEST_CLAIM:
            claim = None
        kept.append(Kept(read(record, query.max_bytes), place, score, claim))
    return tuple(kept)


def _matched(contents: Contents, query: Match) -> Matched:
    place, after = query.place, query.after
    contents.check_kinds((place, HashKey(place.scope, RECORDS)))
    records = contents.hashes.get(full_name(place.scope, RECORDS), {})
    entries: list[tuple[bytes, Score]]
    start = int(after[0]) if after is not None and isinstance(place, ListKey) else 0
    if isinstance(place, ListKey):
        listed = islice(contents.lists.get(place.full, ()), start, start + query.limit)
        entries = [(id_, start + index) for index, id_ in enumerate(listed)]
    else:
        members = contents.sets.get(place.full, SortedSet())
        page = islice(members if after is None else members.after(after), query.limit)
        entries = [(member, score) for score, member in page]
    looked = len(within([id_ for id_, _ in entries], query.max_bytes, records))
    found = [entry for entry in entries[:looked] if _holds(records.get(entry[0]), query)]
    if looked == len(entries) < query.limit:
        return Matched(tuple(found), looked, None)
    if isinstance(place, ListKey):
        return Matched(tuple(found), looked, (start + looked, b""))
    last, score = entries[looked - 1]
    return Matched(tuple(found), looked, (score, last))


def _holds(record: bytes | None, query: Match) -> bool:
    return record is not None and len(record) <= query.max_bytes and all(needle in record for needle in query.needles)


def _found(contents: Contents, scope: str, ids: Iterable[bytes], search: bool) -> Answer:
    ready, sets = ListKey(scope, "ready"), [SetKey(scope, place) for place in _SET_PLACES]
    contents.check_kinds((HashKey(scope, RECORDS), HashKey(scope, CLAIMS), *sets, *((ready,) if search else ())))
    records = contents.hashes.get(full_name(scope, RECORDS), {})
    claims = contents.hashes.get(full_name(scope, CLAIMS), {})
    empty: Collection[bytes] = ()
    members = [contents.sets[key.full].scores if key.full in contents.sets else empty for key in sets]
    listed = contents.lists.get(ready.full, empty) if search else empty
    found = []
    for id_ in ids:
        places: list[Place] = []
        for place, those in zip(_SET_PLACES, members, strict=True):
            if id_ in those:
                places.append(place)
            if place == "waiting":  # the next in order is the list
                places.extend("ready" for _ in islice((value for value in listed if value == id_), 2))
        found.append(Found(id_ in records, tuple(places), id_ in claims))
    return tuple(found)

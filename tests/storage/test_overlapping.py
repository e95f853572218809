"""Work that is done between sending a request and reading its answer."""

from __future__ import annotations

import pytest

from jobqueue.errors import NotApplied
from jobqueue.storage.memory import MemoryStorage
from jobqueue.storage.ops import Applied, Placed
from jobqueue.storage.redis import open_redis
from jobqueue.storage.wrappers import overlapped
from tests.servers import Server
from tests.storage.test_redis import ADD, count, put, until


def test_the_request_is_carried_out_while_the_work_is_done(server: Server) -> None:
    storage = open_redis(server.url).storage()
    seen: list[int] = []

    def work() -> None:
        if storage_is_open:
            until(lambda: count(server) == 2)
        seen.append(count(server))

    storage_is_open = False
    storage.apply_while([ADD], work)  # connects first: the work does not wait for that
    storage_is_open = True
    [outcome] = storage.apply_while([ADD], work)
    storage.close()

    assert isinstance(outcome, Applied)
    assert seen[0] == 0
    assert seen[-1] == 2


def test_the_work_is_done_although_nothing_can_be_sent() -> None:
    storage = open_redis("redis://127.0.0.1:1").storage()
    done: list[bool] = []

    [outcome] = storage.apply_while([ADD], lambda: done.append(True))

    assert isinstance(outcome, NotApplied)
    assert done


@pytest.mark.parametrize("error", [KeyError("planned"), OSError("too many open files"), KeyboardInterrupt()])
def test_an_answer_that_nobody_read_is_not_the_answer_to_the_next_request(server: Server, error: BaseException) -> None:
    """An error of the work is none of the connection: an `OSError` of it would pass for a lost reply."""
    storage = open_redis(server.url).storage()
    storage.apply([ADD])

    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        storage.apply_while([ADD], work)
    [outcome] = storage.apply([put(b"a")])
    storage.close()

    assert isinstance(outcome, Applied)
    assert outcome.answers == (Placed(("stored",)),)


def test_a_storage_that_does_not_offer_it_works_first() -> None:
    storage = MemoryStorage()
    seen: list[object] = []

    [outcome] = overlapped(storage)([ADD], lambda: seen.append(storage.dump()))

    assert isinstance(outcome, Applied)
    assert seen == [{}]

"""An example shop: jobs with planted faults, and the same jobs repaired, for the tests of `check_job`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final
from unittest import mock

import attrs

from jobqueue import Context, Discard, Job, JobQueue, Snooze
from jobqueue.job import Call
from jobqueue.testing import JobReport, check_job

jobs: Final = JobQueue(namespace="shop")


class Refused(Exception):
    pass


class Shop:
    """The fake that jobs act on. What takes a ``key`` does nothing the second time."""

    def __init__(self) -> None:
        self.balance = 100
        self.booked: list[str] = []
        self.mails: list[str] = []
        self.keys: set[str] = set()
        self.fence = 0

    def debit(self, amount: int, key: str | None = None) -> None:
        if self._is_new(key):
            self.balance -= amount

    def mail(self, to: str, key: str | None = None) -> None:
        if self._is_new(key and f"mail {key}"):
            self.mails.append(to)

    async def amail(self, to: str, key: str | None = None) -> None:
        Shop.mail(self, to, key)  # not seen as an effect of its own

    def book(self, amount: int, what: str) -> None:
        """One step: the debit, and that this was booked."""
        self.balance -= amount
        self.booked.append(what)

    def write(self, balance: int, what: str, fence: int | None = None) -> None:
        """One step: the new balance, and that this was booked."""
        self._look_at(fence)
        self.balance = balance
        self.booked.append(what)

    def read(self, fence: int | None = None) -> int:
        self._look_at(fence)
        return self.balance

    def _is_new(self, key: str | None) -> bool:
        is_new = key not in self.keys
        if key is not None:
            self.keys.add(key)
        return is_new

    def _look_at(self, fence: int | None) -> None:
        if fence is not None and fence < self.fence:
            raise Refused(f"{fence} is behind {self.fence}")
        self.fence = fence or 0


shop = Shop()


def use(made: Any) -> AbstractContextManager[Any]:
    return mock.patch(f"{__name__}.shop", made)


def state(made: Shop) -> tuple[object, ...]:
    return made.balance, made.mails, sorted(set(made.booked))


def check(job: Any, *effects: str, world: Callable[[], Any] = Shop, **more: Any) -> JobReport:
    """`check_job` in this shop; by default all its effects."""
    names = effects or ("debit", "mail", "amail", "book", "write", "read")
    return check_job(job, world=world, use=use, effects=names, **{"state": state, **more})


def name_of(value: Any) -> str | None:
    """The id of a job that is a test's parameter."""
    if isinstance(value, Call):
        return value.kind.name.rpartition(".")[2]
    return type(value).__name__ if isinstance(value, Job) else None


# ------------------------------------------------------------------------------------------------------ planted faults


@jobs.job
def double_charge(order: int) -> None:
    shop.debit(10)


@jobs.job
def double_mail(ctx: Context, order: int) -> None:
    shop.debit(10, key=ctx.record.id)
    shop.mail(f"paid {order}")


@jobs.job
async def double_amail(ctx: Context, order: int) -> None:
    shop.debit(10, key=ctx.record.id)
    await shop.amail(f"paid {order}")


@jobs.register
@attrs.frozen
class Charge(Job):
    order: int

    def perform(self, ctx: Context) -> None:
        double_charge(self.order)


@jobs.register
@attrs.frozen
class AsyncCharge(Job):
    order: int

    async def perform(self, ctx: Context) -> None:
        await shop.amail("paid")


@jobs.job
def read_modify_write(order: int) -> None:
    shop.write(shop.read() - 10, "charge")


@jobs.job
def look_then_charge(ctx: Context, order: int) -> None:
    """Safe when it is run again, not beside itself."""
    if ctx.record.id not in shop.booked:
        shop.book(10, ctx.record.id)


@jobs.job
def lost_update(order: int) -> None:
    """Each write is one step with its mark, so that every crash is survived; a zombie takes back the fee."""
    for amount, what in ((10, "charge"), (1, "fee")):
        balance = shop.read()
        if what not in shop.booked:
            shop.write(balance - amount, what)


@jobs.job
def fenced_too_late(ctx: Context, order: int) -> None:
    """The fence is shown where it writes, not where it reads: the successor may read what the zombie then changes."""
    for amount, what in ((10, "charge"), (1, "fee")):
        balance = shop.read()
        if what not in shop.booked:
            shop.write(balance - amount, what, fence=ctx.fence)


@jobs.job
def key_of_the_run(ctx: Context, order: int) -> None:
    shop.debit(10, key=str(ctx.fence))


@jobs.job(retry=3)
def refuses_the_rest(ctx: Context, order: int) -> None:
    if ctx.record.id in shop.keys:
        raise Refused("charged already")
    shop.debit(10, key=ctx.record.id)


@jobs.job(retry=-1)
def refuses_for_ever(ctx: Context, order: int) -> None:
    refuses_the_rest(ctx, order)


@jobs.job
def enqueues_again(ctx: Context, order: int) -> None:
    shop.debit(10, key=ctx.record.id)
    double_charge.opts(delay=5).enqueue(order)


@jobs.job
def swallows_crashes(order: int) -> None:
    try:
        shop.debit(10)
    except BaseException:  # noqa: BLE001 - the planted fault
        shop.mail("swallowed")
    finally:
        shop.mails.append("cleaned up")
    while "sent" not in shop.mails:
        try:
            shop.mail("sent")
        except BaseException:  # noqa: BLE001 - the planted fault
            continue


# ------------------------------------------------------------------------------------------------------------ repaired


@jobs.job
def charge(ctx: Context, order: int) -> None:
    shop.debit(10, key=ctx.record.id)
    shop.mail(f"paid {order}", key=ctx.record.id)


@jobs.job
async def acharge(ctx: Context, order: int) -> None:
    shop.debit(10, key=ctx.record.id)
    await shop.amail(f"paid {order}", key=ctx.record.id)


@jobs.register
@attrs.frozen
class KeyedCharge(Job):
    order: int

    def perform(self, ctx: Context) -> None:
        shop.debit(10, key=ctx.record.id)


@jobs.job
def fenced(ctx: Context, order: int) -> None:
    for amount, what in ((10, "charge"), (1, "fee")):
        balance = shop.read(ctx.fence)
        if what not in shop.booked:
            shop.write(balance - amount, what, fence=ctx.fence)


@jobs.job
def discards_the_rest(ctx: Context, order: int) -> None:
    if ctx.record.id in shop.keys:
        raise Discard("charged already")
    shop.debit(10, key=ctx.record.id)


@jobs.job
def sleeps_once(ctx: Context, order: int) -> Snooze | None:
    """Two runs without any fault: the second one charges."""
    if "seen" not in shop.mails:
        shop.mail("seen", key=ctx.record.id)
        return Snooze(3600)
    shop.debit(10, key=ctx.record.id)
    return None


@jobs.job
def five_effects(ctx: Context, order: int) -> None:
    for number in range(5):
        shop.debit(1, key=f"{ctx.record.id} {number}")

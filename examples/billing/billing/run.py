"""The jobs of the run. Each may be run twice; what makes that safe is a different thing in each."""

from datetime import timedelta

from billing import services
from billing.work import jobs
from jobqueue import Context, Discard, RetryPolicy, Snooze

PATIENT = RetryPolicy(limit=3, backoff=lambda n: timedelta(hours=6**n), give_up_on=(services.CardExpired,))


@jobs.job(queue="high")
def start(month: str) -> None:
    """Enqueue a charge for each open invoice, and the end of the month two weeks later.

    Run twice, it enqueues them twice: under other ids. So the charge must not take the id of its job for a key.
    """
    jobs.enqueue_many([charge.call(month, customer) for customer in services.books.open_invoices(month)])
    close.opts(delay=timedelta(days=14)).enqueue(month)


@jobs.job(retry=PATIENT)
def charge(month: str, customer: str) -> None:
    """Take the money for one invoice. The key is what there must be only one of: a month of a customer."""
    cents = services.books.cents_due(month, customer)
    if cents == 0:
        raise Discard(f"{customer} has left")
    try:
        services.bank.charge(customer, cents, key=f"{month}/{customer}")
    except services.BankClosed as closed:
        raise Snooze(closed.seconds) from closed  # nothing has failed, so no retry is used up
    services.books.mark_paid(month, customer)


@jobs.job(retry=PATIENT)
def refund(ctx: Context, customer: str, cents: int) -> None:
    """Give money back. Two refunds of a dollar are two refunds, so the key is the id: the same in all runs of one job."""
    services.bank.pay_out(customer, cents, key=ctx.record.id)


@jobs.job
def close(month: str) -> None:
    """Add the month to the balance. There is no key for an addition that we do ourselves, so there is a lock with a fence.

    The lock keeps others out for twenty seconds. Who stands still for longer has lost it without knowing, but has a smaller
    fence than whoever came next, and is refused. (`Context.fence` would do if one job alone wrote the balance.)
    """
    with jobs.lock("balance", ttl=20) as lease:
        balance = services.books.balance(fence=lease.fence)
        if services.books.is_closed(month):
            raise Discard(f"{month} is closed")
        services.books.close(month, balance + services.books.paid(month), fence=lease.fence)

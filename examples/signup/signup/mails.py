"""The mails, as jobs."""

import smtplib
from email.message import EmailMessage

from jobqueue import Context, Discard, Retry, RetryPolicy
from signup.accounts import is_confirmed
from signup.work import jobs


def deliver(message: EmailMessage) -> None:
    """Hand a mail to the mail server of this machine."""
    with smtplib.SMTP("localhost") as server:
        server.send_message(message)


def _send(ctx: Context, to: str, subject: str) -> None:
    message = EmailMessage()
    message["To"] = to
    message["Subject"] = subject
    # The same in all runs of the job, so that a mail sent twice can be recognised and shown once.
    message["Message-ID"] = f"<{ctx.record.id}@example.org>"
    deliver(message)


# A server that refuses an address will refuse it tomorrow as well.
ONLY_IF_ACCEPTED = RetryPolicy(limit=5, give_up_on=(smtplib.SMTPRecipientsRefused,))


@jobs.job(queue="high", retry=ONLY_IF_ACCEPTED)
def confirm(ctx: Context, email: str) -> None:
    """Ask whether the address is theirs."""
    if is_confirmed(email) is None:
        raise Retry(after=5)  # the web process enqueues before it commits, so we may be too early
    _send(ctx, email, "please confirm your address")


@jobs.job(retry=ONLY_IF_ACCEPTED)
def remind(ctx: Context, email: str) -> None:
    """Ask again, if they have not answered."""
    if is_confirmed(email) is not False:
        raise Discard("confirmed, or gone")
    _send(ctx, email, "you have not confirmed your address yet")

"""What the jobs act on, as they need it. The program that starts a runner puts real ones here, tests put fakes."""

from typing import Protocol


class CardExpired(Exception):
    """There is no use in trying again."""


class BankClosed(Exception):
    """The bank does not take orders now.

    Attributes:
        seconds: How long it stays closed.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"closed for {seconds:g} s")
        self.seconds = seconds


class Bank(Protocol):
    """A payment service, which does nothing the second time it sees a key."""

    def charge(self, customer: str, cents: int, *, key: str) -> None:
        """Take money."""
        ...

    def pay_out(self, customer: str, cents: int, *, key: str) -> None:
        """Give money back."""
        ...


class Books(Protocol):
    """The books of the firm, a database."""

    def open_invoices(self, month: str) -> list[str]:
        """The customers who have not paid this month."""
        ...

    def cents_due(self, month: str, customer: str) -> int:
        """What is to be paid; 0 for a customer who has left."""
        ...

    def mark_paid(self, month: str, customer: str) -> None:
        """Note that it is paid; the same again changes nothing."""
        ...

    def balance(self, *, fence: int) -> int:
        """The sum of all closed months; refuses a fence that is smaller than one it has seen."""
        ...

    def close(self, month: str, balance: int, *, fence: int) -> None:
        """Close a month and set the balance, in one step; refuses a smaller fence, as `balance` does."""
        ...

    def is_closed(self, month: str) -> bool:
        """Whether a month is closed."""
        ...

    def paid(self, month: str) -> int:
        """The sum of what was paid in a month."""
        ...


bank: Bank
books: Books

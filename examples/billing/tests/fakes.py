"""A payment service and books that refuse what the real ones refuse."""

from billing.services import BankClosed, CardExpired


class Refused(Exception):
    """Somebody else has the lock now."""


class FakeBank:
    def __init__(self) -> None:
        self.account = 0
        self.keys: set[str] = set()
        self.closed_for = 0.0
        self.expired: set[str] = set()
        self.down = False

    def charge(self, customer: str, cents: int, *, key: str) -> None:
        if self.closed_for:
            raise BankClosed(self.closed_for)
        if self.down:
            raise ConnectionError("no answer")
        if customer in self.expired:
            raise CardExpired(customer)
        self._move(cents, key)

    def pay_out(self, customer: str, cents: int, *, key: str) -> None:
        self._move(-cents, key)

    def _move(self, cents: int, key: str) -> None:
        if key not in self.keys:
            self.keys.add(key)
            self.account += cents


class FakeBooks:
    def __init__(self) -> None:
        self.due = {"ann": 1000, "bob": 250, "gone": 0}
        self.settled: set[tuple[str, str]] = set()
        self.carried = 0
        self.closed: set[str] = set()
        self.fence = 0

    def open_invoices(self, month: str) -> list[str]:
        return [customer for customer in self.due if (month, customer) not in self.settled]

    def cents_due(self, month: str, customer: str) -> int:
        return self.due[customer]

    def mark_paid(self, month: str, customer: str) -> None:
        self.settled.add((month, customer))

    def paid(self, month: str) -> int:
        return sum(self.due[customer] for found, customer in self.settled if found == month)

    def is_closed(self, month: str) -> bool:
        return month in self.closed

    def balance(self, *, fence: int) -> int:
        self._compare(fence)
        return self.carried

    def close(self, month: str, balance: int, *, fence: int) -> None:
        self._compare(fence)
        self.carried = balance
        self.closed.add(month)

    def _compare(self, fence: int) -> None:
        if fence < self.fence:
            raise Refused(f"fence {fence} after {self.fence}")
        self.fence = fence


class World:
    """Both, for a job that is played many times."""

    def __init__(self) -> None:
        self.bank = FakeBank()
        self.books = FakeBooks()
        self.books.settled.add(("May", "bob"))

"""Arguments that are pydantic models, where pydantic is installed."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Annotated, Any

import attrs
import pytest

from jobqueue.errors import DeclarationError, PayloadError
from jobqueue.job import Declared, function_kind

pydantic = pytest.importorskip("pydantic")
annotated_types = pytest.importorskip("annotated_types")


class Address(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(strict=True)
    street: str
    since: date


class Customer(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    name: str
    addresses: list[Address] = pydantic.Field(default_factory=list)
    seen: datetime | None = None
    rating: float = 0.0


@attrs.frozen
class Order:
    customer: Customer
    count: int = 1


CUSTOMER = Customer(
    name="a", addresses=[Address(street="s", since=date(2030, 1, 1))], seen=datetime(2030, 1, 1, tzinfo=UTC), rating=1.5
)


def receive(hint: Any, value: Any) -> Any:
    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": hint}
    kind = function_kind(take, "shop.take", Declared(), (), None)
    return kind.bind(kind.encode({"value": value}), None)()  # type: ignore[arg-type] # it takes no context


@pytest.mark.parametrize(
    ("hint", "value"),
    [(Customer, CUSTOMER), (list[Customer], [CUSTOMER]), (Customer | None, None), (Customer | None, CUSTOMER),
     (Order, Order(CUSTOMER)), (dict[str, Order], {"a": Order(CUSTOMER, 2)})],
)  # fmt: skip
def test_a_model_arrives_as_it_was(hint: Any, value: Any) -> None:
    received = receive(hint, value)

    assert received == value
    assert type(received) is type(value)


def test_a_model_that_was_broken_after_its_making_is_refused() -> None:
    broken = CUSTOMER.model_copy(update={"name": 3})
    infinite = CUSTOMER.model_copy(update={"rating": math.inf})

    for wrong in (broken, infinite):
        with pytest.raises(PayloadError, match=r"shop\.take: "):
            receive(Customer, wrong)


def test_something_else_is_refused() -> None:
    for wrong in (3, "x", CUSTOMER.addresses[0]):
        with pytest.raises(PayloadError, match=r"shop\.take: "):
            receive(Customer, wrong)


def test_bytes_that_do_not_fit_the_model_are_refused() -> None:
    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": Customer}
    kind = function_kind(take, "shop.take", Declared(), (), None)

    with pytest.raises(PayloadError, match=r"shop\.take: "):
        kind.codec.decode(b'{"value":{"name":3}}')


def test_constraints_that_nobody_would_check_are_refused_at_declaration() -> None:
    for hint in (Annotated[int, pydantic.Field(gt=0)], list[Annotated[int, annotated_types.Gt(0)]]):
        with pytest.raises(DeclarationError, match=r"parameter `value`.*would not be checked: use msgspec\.Meta"):
            receive(hint, 1)


def test_a_union_of_two_models_is_refused_at_declaration() -> None:
    with pytest.raises(DeclarationError, match="parameter `value`"):
        receive(Customer | Address, CUSTOMER)

"""Arguments that are pydantic models, where pydantic is installed."""

from __future__ import annotations

import math
import typing
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue import JobQueue
from jobqueue.codec import Codec, Parameter
from jobqueue.errors import DeclarationError, PayloadError
from jobqueue.job import Declared, function_kind
from jobqueue.testing import strategies

pydantic = pytest.importorskip("pydantic")
annotated_types = pytest.importorskip("annotated_types")
to_camel = pytest.importorskip("pydantic.alias_generators").to_camel
T = TypeVar("T")


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


# -------------------------------------------------------------------------------------------------------------- aliases


class Plain(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    order_id: int = pydantic.Field(alias="orderId")


class Camel(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")
    order_id: int
    line_items: list[Plain] = pydantic.Field(default_factory=list)

    @pydantic.computed_field  # type: ignore[prop-decorator,untyped-decorator]
    @property
    def item_count(self) -> int:
        return len(self.line_items)


class TwoNames(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    number: int = pydantic.Field(validation_alias="readAs", serialization_alias="writtenAs")
    other: int = pydantic.Field(default=0, validation_alias=pydantic.AliasChoices("p", pydantic.AliasPath("q", 0)))


class Cat(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(alias_generator=to_camel)
    pet_type: Literal["cat"] = "cat"
    life_count: int = 9


class Dog(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(alias_generator=to_camel)
    pet_type: Literal["dog"] = "dog"


class Owner(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    pet: Cat | Dog = pydantic.Field(discriminator="pet_type", alias="itsPet")
    any_of: list[Plain | TwoNames | int] = pydantic.Field(default_factory=list)


class Extras(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(extra="allow")
    one: int = pydantic.Field(alias="first")


class Swapped(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    x: int = pydantic.Field(alias="y")
    y: int = pydantic.Field(alias="x")


class ByAlias(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    model_config = pydantic.ConfigDict(serialize_by_alias=True, alias_generator=to_camel)
    some_json: pydantic.Json[list[int]]  # type: ignore[name-defined]
    nested_name: TwoNames


class Orders(pydantic.RootModel[list[Plain]]):  # type: ignore[misc,name-defined]
    pass


@attrs.frozen
class Holder(typing.Generic[T]):
    model: T


class Colour(Enum):
    RED = "red"


class Less(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    x: int = 0


class More(Less):
    y: int = 0


class Loose(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    any: Any = None
    at: datetime | None = None
    number: float = 0.0
    secret: pydantic.SecretStr | None = None  # type: ignore[name-defined]
    left_out: int = pydantic.Field(default=0, exclude=True)
    nested: Less | None = None
    raw: bytes = b""
    _private: int = 0

    def __init__(self, private: int = 0, **values: Any) -> None:
        super().__init__(**values)
        self._private = private


class Generic(pydantic.BaseModel, typing.Generic[T]):  # type: ignore[misc,name-defined]
    the_item: T = pydantic.Field(alias="theItem")


def models() -> st.SearchStrategy[Any]:
    numbers = st.integers(-9, 9)
    plain = numbers.map(lambda n: Plain(orderId=n))
    two = st.builds(lambda n, m: TwoNames(readAs=n, p=m), numbers, numbers)
    return st.one_of(
        plain,
        two,
        st.builds(lambda n, items: Camel(orderId=n, lineItems=items), numbers, st.lists(plain, max_size=2)),
        st.builds(
            lambda pet, rest: Owner(itsPet=pet, any_of=rest),
            st.sampled_from([Cat(), Cat(lifeCount=3), Dog()]),
            st.lists(plain | two | numbers, max_size=3),
        ),
        st.builds(lambda n, more: Extras(first=n, **more), numbers, st.dictionaries(st.sampled_from("abc"), numbers)),
        st.builds(lambda n, m: Swapped(x=n, y=m), numbers, numbers),
        st.builds(lambda n, nested: ByAlias(someJson=f"[{n}]", nestedName=nested), numbers, two),
        st.builds(Orders, st.lists(plain, max_size=2)),
        plain.map(lambda one: Generic[Plain](theItem=one)),
    )


@given(models(), st.sampled_from(["alone", "list", "dict", "optional", "attrs"]))
def test_a_model_with_other_names_arrives_as_it_was(model: Any, where: str) -> None:
    cls = type(model)
    hint, value = {
        "alone": (cls, model),
        "list": (list[cls], [model, model]),  # type: ignore[valid-type]
        "dict": (dict[str, cls], {"a": model}),  # type: ignore[valid-type]
        "optional": (cls | None, model),
        "attrs": (Holder[cls], Holder[cls](model)),  # type: ignore[valid-type]
    }[where]

    received = receive(hint, value)

    assert received == value
    assert type(received) is type(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Loose(any=(1,)), r"`value\.any`: a tuple would arrive as a list"),
        (Loose(any=[{"a": Colour.RED}]), r"`value\.any\[0\]\[\.\.\.\]`: a Colour would arrive as a str"),
        (Loose(at=datetime(2030, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))), r"`value\.at`: its zone would arrive as"),
        (Loose(number=math.inf), r"`value\.number`: inf has no form in JSON"),
        (Loose(number=math.nan), r"`value\.number`: nan has no form in JSON"),
        (Loose(secret="s3cret"), r"`value\.secret`: a SecretStr would arrive changed"),
        (Loose(left_out=3), r"`value\.left_out`: an int would arrive changed"),
        (Loose(nested=More(x=1, y=2)), r"`value\.nested`: a More would arrive as a Less|`value"),
        (Loose(raw=b"\xff"), r"`value`: pydantic cannot write a Loose as JSON"),
        (Loose().model_copy(update={"number": "x"}), r"`value"),
        (Loose(private=3), r"`value`: the private attributes of a Loose would not arrive"),
        ({"number": 1.0}, r"`value`: a dict would arrive as a Loose"),
    ],
)  # fmt: skip
def test_what_would_arrive_changed_inside_of_a_model_is_refused(value: Any, words: str) -> None:
    with pytest.raises(PayloadError, match=rf"^shop\.take: argument {words}") as caught:
        receive(Loose, value)

    assert "s3cret" not in str(caught.value)


def test_the_refusal_names_the_place_inside_of_a_model_and_quotes_nothing() -> None:
    codec = Codec("shop.take", [Parameter("value", list[Camel])])

    with pytest.raises(PayloadError) as caught:
        codec.decode(b'{"value":[{"order_id":1,"line_items":[{"order_id":"s3cret"}]}]}')

    assert str(caught.value).startswith(
        "shop.take: argument `value[0].line_items[0].order_id`: Input should be a valid"
    )
    assert "s3cret" not in str(caught.value)


def test_values_of_a_model_with_aliases_can_be_drawn() -> None:
    jobs = JobQueue("memory://")

    @jobs.job(name="take")
    def take(value: Camel) -> None: ...

    @given(strategies.jobs(jobs))
    def drawn(call: Any) -> None:
        assert isinstance(call.arguments["value"], Camel)

    drawn()

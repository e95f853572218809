"""What a function or class declares: its parameters, and whether they can travel as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from enum import Flag
from types import GenericAlias
from typing import Any, Final

import attrs
import msgspec
from msgspec import inspect as types

from jobqueue import models
from jobqueue.codec import REQUIRED, Parameter
from jobqueue.context import Context
from jobqueue.endings import never_ran, requested_by
from jobqueue.errors import DeclarationError
from jobqueue.hints import class_hints, function_hints, return_hint
from jobqueue.names import unwrapped

__all__ = ["ClassShape", "FunctionShape", "class_shape", "function_shape", "init_fields"]

_ADVICE: Final = "see the list of types that arguments can have: JSON by type, attrs classes and dataclasses"


@attrs.frozen
class FunctionShape:
    """How a function is called.

    Attributes:
        signature: Its parameters without the context.
        parameters: The same, as they are stored.
        takes_context: Whether its first parameter is filled in with the `Context`.
        is_coroutine: Whether calling it gives something to await.
        reserved: Names that ``**kwargs`` must not hold, because they are those of other parameters.
    """

    signature: inspect.Signature
    parameters: tuple[Parameter, ...]
    takes_context: bool
    is_coroutine: bool
    reserved: frozenset[str]


@attrs.frozen
class ClassShape:
    """How an instance of a class is made again.

    Attributes:
        attributes: Names of its attributes, in their order.
        aliases: What its ``__init__`` calls them.
        parameters: The same, as they are stored.
        is_coroutine: Whether its ``perform`` gives something to await.
    """

    attributes: tuple[str, ...]
    aliases: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    is_coroutine: bool


# ----------------------------------------------------------------------------------------------------------- functions


def function_shape(target: Callable[..., Any], name: str) -> FunctionShape:
    """Read the declaration of a function.

    Args:
        target: A function, coroutine function, or a partial of one.
        name: The name of the kind, for error messages.

    Raises:
        DeclarationError: It cannot be run as a job, or a parameter cannot be stored; says which and what to do.
    """
    function = unwrapped(target)
    _refuse_other_callables(function, name)
    is_coroutine = inspect.iscoroutinefunction(target)
    _refuse_what_runs_nothing(
        function, name, is_coroutine=is_coroutine, advice=", or put @jobs.job below the other decorator"
    )
    inner = inspect.unwrap(function)
    if inner is function:  # else the annotations are those of the inner one, and the wrapper may do all of it
        _refuse_result(return_hint(inner), name)
    given = list(inspect.signature(target).parameters.values())
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    reserved = frozenset(parameter.name for parameter in given if parameter.kind in by_name)
    hints = function_hints(inner, [parameter.name for parameter in given], name)
    takes_context = bool(given) and hints.get(given[0].name) is Context
    if takes_context:
        first = given.pop(0)
        if first.kind in (first.KEYWORD_ONLY, first.VAR_POSITIONAL, first.VAR_KEYWORD):
            raise DeclarationError(f"{name}: the context `{first.name}` must be a positional parameter")
    return FunctionShape(
        signature=inspect.Signature(given),
        parameters=tuple(_function_parameter(parameter, hints, name) for parameter in given),
        takes_context=takes_context,
        is_coroutine=is_coroutine,
        reserved=reserved,
    )


def _refuse_other_callables(function: Any, name: str) -> None:
    advice = "declare a function of a module, or a class with `perform`"
    if isinstance(function, type):
        raise DeclarationError(f"{name} is a class: declare it with @jobs.register")
    if isinstance(function, classmethod | staticmethod) or inspect.ismethod(function):
        raise DeclarationError(f"{name} is a method, and a runner would have no object to call it on: {advice}")
    if not inspect.isfunction(function):
        raise DeclarationError(f"{name}: {function!r} is no Python function: {advice}")
    outer = function.__qualname__.rpartition(".")[0]
    if outer and not outer.endswith("<locals>"):
        raise DeclarationError(f"{name} is declared inside of the class {outer}: {advice}")


def _refuse_what_runs_nothing(function: Any, name: str, *, is_coroutine: bool, advice: str = "") -> None:
    """Refuse functions of which it can be seen that a call runs nothing. Others are found out when their jobs have run."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(
            f"{name} has a `yield`, so calling it would run nothing: let it go through that by itself"
        )
    if function.__code__ in _MANAGERS:
        raise DeclarationError(
            f"{name} is a context manager, so calling it would run nothing: enter it in another function, and declare that"
        )
    if inspect.iscoroutinefunction(inspect.unwrap(function)) and not is_coroutine:
        raise DeclarationError(
            f"{name} wraps a coroutine function but is none itself, so nobody would await what it returns: "
            f"make the wrapper an `async def`{advice}"
        )


_NOTHING: Any = None
_MANAGERS: Final = frozenset(
    {contextlib.contextmanager(_NOTHING).__code__, contextlib.asynccontextmanager(_NOTHING).__code__}
)
"""The code that all functions below one of these decorators share."""


def _refuse_result(returns: Any, name: str) -> None:
    """Refuse what is annotated to return something that nobody would run."""
    given = typing.get_origin(returns) or returns
    if not isinstance(given, type):
        return
    if what := never_ran(given):
        raise DeclarationError(
            f"{name} is annotated to return {what} ({_show(returns)}), which nobody would run: let it do that work itself"
        )
    classes = typing.get_args(returns) if given is type else ()
    if classes and isinstance(classes[0], type) and (request := requested_by(classes[0])):
        raise DeclarationError(f"{name} is annotated to return the class {request} itself: return an instance of it")


def _function_parameter(parameter: inspect.Parameter, hints: Mapping[str, Any], name: str) -> Parameter:
    where = f"{name}: parameter `{parameter.name}`"
    hint = _annotation(parameter.name, hints, where)
    if hint is Context:
        raise DeclarationError(f"{where} is a Context: only the first parameter is filled in, put it there")
    default: Any = REQUIRED if parameter.default is parameter.empty else parameter.default
    if parameter.kind is parameter.VAR_POSITIONAL:
        hint, default = _unpacked(hint) or GenericAlias(tuple, (hint, ...)), ()
    elif parameter.kind is parameter.VAR_KEYWORD:
        hint, default = _unpacked(hint) or GenericAlias(dict, (str, hint)), {}
    _check_type(hint, where)
    return Parameter(parameter.name, hint, default)


def _unpacked(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Unpack else None


# ------------------------------------------------------------------------------------------------------------- classes


def class_shape(cls: type[Any], name: str) -> ClassShape:
    """Read the declaration of a class with ``perform``.

    Args:
        cls: An attrs class or dataclass.
        name: The name of the kind, for error messages.

    Raises:
        DeclarationError: It cannot be run as a job, or a field cannot be stored; says which and what to do.
    """
    fields = list(init_fields(cls))
    if "__attrs_attrs__" not in vars(cls) and "__dataclass_fields__" not in vars(cls):
        raise DeclarationError(
            f"{name}: {cls.__qualname__} is neither an attrs class nor a dataclass: "
            "put @attrs.frozen or @dataclass between @jobs.register and the class"
        )
    _check_fields(cls, name)
    taken = set(inspect.signature(cls).parameters)
    strange = taken.symmetric_difference(alias for _, alias, _ in fields)
    if strange:
        raise DeclarationError(
            f"{name}: __init__ and the fields do not agree on `{min(strange)}`, so the instance could not be "
            "made again from what is stored: let attrs or dataclass write __init__, without InitVar"
        )
    hints = class_hints(cls, [attribute for attribute, _, _ in fields], name)
    parameters: list[Parameter] = []
    for attribute, _, default in fields:
        where = f"{name}: field `{attribute}`"
        hint = _annotation(attribute, hints, where)
        _check_type(hint, where)
        parameters.append(Parameter(attribute, hint, default))
    return ClassShape(
        attributes=tuple(attribute for attribute, _, _ in fields),
        aliases=tuple(alias for _, alias, _ in fields),
        parameters=tuple(parameters),
        is_coroutine=_perform_is_coroutine(cls, name),
    )


def _perform_is_coroutine(cls: type[Any], name: str) -> bool:
    perform = inspect.getattr_static(cls, "perform", None)
    if not inspect.isfunction(perform) or inspect.isgeneratorfunction(perform) or inspect.isasyncgenfunction(perform):
        raise DeclarationError(f"{name} needs a method `def perform(self, ctx: Context)`, or `async def`")
    try:
        inspect.signature(perform).bind(None, None)
    except TypeError:
        raise DeclarationError(
            f"{name}: perform is called with the Context alone: declare it as `def perform(self, ctx: Context)`, "
            "and what it needs besides as fields"
        ) from None
    is_coroutine = inspect.iscoroutinefunction(perform)
    where = f"{name}: perform"
    _refuse_what_runs_nothing(perform, where, is_coroutine=is_coroutine)
    if inspect.unwrap(perform) is perform:
        _refuse_result(return_hint(perform), where)
    return is_coroutine


def init_fields(cls: type[Any]) -> Iterator[tuple[str, str, Any]]:
    """Attribute name, name in ``__init__``, and REQUIRED or UNSET, of every field that ``__init__`` takes."""
    if attrs.has(cls):
        for attribute in attrs.fields(cls):
            if attribute.init:
                has_default = attribute.default is not attrs.NOTHING
                yield attribute.name, attribute.alias or attribute.name, msgspec.UNSET if has_default else REQUIRED
    elif dataclasses.is_dataclass(cls):
        for field in dataclasses.fields(cls):
            if field.init:
                has_default = (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)
                yield field.name, field.name, msgspec.UNSET if has_default else REQUIRED


def _check_fields(cls: type[Any], where: str) -> None:
    """Refuse what msgspec would silently leave out (private fields) or skip (converters)."""
    names = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for attribute in attrs.fields(cls) if attrs.has(cls) else ():
        names.append(attribute.name)
        if attribute.converter is not None:
            raise DeclarationError(
                f"{where}: the field `{attribute.name}` of {cls.__qualname__} has a converter, which would not be "
                "called when the job is read back: convert before, or in the job"
            )
    for field in names:
        if field.startswith("_"):
            raise DeclarationError(
                f"{where}: the field `{field}` of {cls.__qualname__} is private and would not be stored: "
                "rename it without the underscore"
            )


# --------------------------------------------------------------------------------------------------------------- types


def _annotation(parameter: str, hints: Mapping[str, Any], where: str) -> Any:
    if parameter not in hints:
        example = "ctx: Context" if parameter in ("ctx", "self") else f"{parameter}: int"
        raise DeclarationError(f"{where} has no annotation: say what it is, as in `{example}`")
    return hints[parameter]


def _check_type(hint: Any, where: str) -> None:
    """Refuse a type that cannot travel as JSON."""
    _refuse_foreign_constraints(hint, where)
    try:
        msgspec.json.Decoder(hint)
        described = types.type_info(hint)
    except NameError as error:
        raise DeclarationError(
            f"{where}: a class in it has a field whose annotation speaks of `{error.name}`, which its module does not "
            "know: move that class to the top of a module"
        ) from error
    except Exception as error:
        raise DeclarationError(f"{where} cannot be stored as {_show(hint)}: {error}; {_ADVICE}") from error
    _walk(described, where, set())


def _refuse_foreign_constraints(hint: Any, where: str) -> None:
    # Annotated may say anything, so most of it is to be ignored; but somebody who writes Gt(0) relies on it.
    for extra in getattr(hint, "__metadata__", ()):
        if type(extra).__module__.partition(".")[0] in ("annotated_types", "pydantic"):
            raise DeclarationError(f"{where}: the constraint {extra!r} would not be checked: use msgspec.Meta(…)")
    for part in typing.get_args(hint):
        _refuse_foreign_constraints(part, where)


def _walk(node: types.Type, where: str, seen: set[type[Any]]) -> None:
    if isinstance(node, types.CustomType) and not models.is_model(node.cls):
        raise DeclarationError(f"{where} cannot be stored as {_show(node.cls)}; {_ADVICE}")
    if isinstance(node, types.RawType | types.ExtType | types.MemoryViewType):
        raise DeclarationError(f"{where} cannot be stored as {_name(node)}; {_ADVICE}")
    if isinstance(node, types.EnumType) and issubclass(node.cls, Flag):
        raise DeclarationError(
            f"{where} cannot be stored as {_show(node.cls)}: flags that are set together have no form of their own; "
            "take an int and make the flags of it in the job, or take a set of an Enum"
        )
    if isinstance(node, types.DictType):
        _check_key(node.key_type, where)
    if isinstance(node, types.SetType | types.FrozenSetType) and (part := _unhashable(node.item_type)):
        raise DeclarationError(
            f"{where} cannot be stored: a set can hold nothing of type {_name(part)}, which has no hash; take a list"
        )
    if isinstance(node, types.DataclassType | types.StructType | types.TypedDictType | types.NamedTupleType):
        if node.cls in seen:
            return
        seen.add(node.cls)
        if isinstance(node, types.DataclassType):
            _check_fields(node.cls, where)
    for part, inside in _parts(node, where):
        _walk(part, inside, seen)


def _parts(node: Any, where: str) -> Iterator[tuple[types.Type, str]]:
    """The types that a type is made of, and where they are."""
    if isinstance(node, types.UnionType):
        yield from ((member, where) for member in node.types)
    elif isinstance(node, types.Metadata):
        yield node.type, where
    elif isinstance(node, types.CollectionType):
        yield node.item_type, where
    elif isinstance(node, types.TupleType):
        yield from ((item, where) for item in node.item_types)
    elif isinstance(node, types.DictType):
        yield from ((part, where) for part in (node.key_type, node.value_type))
    elif isinstance(node, types.DataclassType | types.StructType | types.TypedDictType | types.NamedTupleType):
        yield from ((field.type, f"{where}: field `{field.name}` of {node.cls.__qualname__}") for field in node.fields)


def _check_key(node: types.Type, where: str) -> None:
    """Refuse the key of a dict that has no form as a string, which is what JSON has for keys."""
    if isinstance(node, types.Metadata | types.UnionType):
        parts = [part for part, _ in _parts(node, where)]
        if any(isinstance(part, types.StrType) for part in parts) and any(isinstance(part, _NUMBERS) for part in parts):
            raise DeclarationError(
                f"{where} cannot be stored: a key in JSON is text, so the number 1 and the text '1' are one key; take a "
                "list of pairs, or keys of one of the two types"
            )
        for part in parts:
            _check_key(part, where)
    elif not isinstance(node, _KEYS):
        raise DeclarationError(
            f"{where} cannot be stored: JSON has no keys of type {_name(node)}; take a list of pairs, "
            "or make a string of the key"
        )


_NUMBERS: Final = types.IntType | types.FloatType
_KEYS: Final = (
    types.AnyType, types.BytesType, types.DateTimeType, types.DateType, types.DecimalType,
    types.EnumType, types.FloatType, types.IntType, types.LiteralType, types.StrType, types.TimeDeltaType, types.TimeType,
    types.UUIDType,
)  # fmt: skip
"""What JSON can have as the key of an object: each of these has a form as a string."""


def _unhashable(node: types.Type) -> types.Type | None:
    """The part of a type of which no set can have a value: the type itself, or a member of a union or tuple."""
    if isinstance(node, types.ListType | types.SetType | types.DictType | types.TypedDictType | types.ByteArrayType):
        return node
    if getattr(getattr(node, "cls", None), "__hash__", ...) is None:
        return node
    inside = (part for part, _ in _parts(node, "")) if isinstance(node, _HASHED_BY_PARTS) else ()
    return next(filter(None, map(_unhashable, inside)), None)


_HASHED_BY_PARTS: Final = (
    types.UnionType | types.Metadata | types.TupleType | types.VarTupleType | types.FrozenSetType | types.NamedTupleType
)


def _name(node: types.Type) -> str:
    cls = getattr(node, "cls", None)
    return _show(cls) if cls is not None else type(node).__name__.removesuffix("Type").lower()


def _show(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) else str(hint)

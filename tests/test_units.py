"""Seconds and milliseconds never meet: the units of names are followed through the expressions of the package.

A name that ends in ``_ms`` is in milliseconds, one that ends in ``_s`` or ``seconds`` in seconds; so is what a function
of such a name answers, and the function itself where it is handed on. A `Clock` answers milliseconds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import pytest

PACKAGE: Final = Path(__file__).parents[1] / "jobqueue"
TREES: Final = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}

Unit = Literal["ms", "s"]
UNITS: Final[list[tuple[Unit, re.Pattern[str]]]] = [
    ("ms", re.compile(r"(?i)(.*_)?(ms|milliseconds)")),
    ("s", re.compile(r"(?i)(.*_)?(s|secs|seconds)")),
]
IN_MS: Final = frozenset({"monotonic", "now", "local"})
"""Attributes: the methods of a `Clock` and what a `Moment` has of its monotonic one."""
IN_SECONDS: Final = frozenset({"sleep", "timeout", "wait", "wait_for", "join", "settimeout", "select", "call_later"})
"""Functions of Python's whose last argument is how many seconds to wait."""
SAME_UNIT: Final = frozenset({"min", "max", "abs", "round", "int", "float"})


def unit_named(name: str) -> Unit | None:
    """The unit that a name says."""
    return next((unit for unit, pattern in UNITS if pattern.fullmatch(name)), None)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _is_thousand(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in (1000, 1000.0)


def unit_of(node: ast.expr | None) -> Unit | None:
    """The unit of an expression, None if its names do not say."""
    match node:
        case ast.Name(name):
            return unit_named(name)
        case ast.Attribute(ast.Name("time"), "monotonic"):
            return "s"
        case ast.Attribute(_, name):
            return "ms" if name in IN_MS else unit_named(name)
        case ast.Call(func, args):
            return next(iter(units_of(args)), None) if _name(func) in SAME_UNIT else unit_of(func)
        case ast.BinOp(left, ast.Mult(), right) if _is_thousand(left) or _is_thousand(right):
            return "ms" if (unit_of(left) or unit_of(right)) == "s" else None
        case ast.BinOp(left, ast.Div() | ast.FloorDiv(), right) if _is_thousand(right):
            return "s" if unit_of(left) == "ms" else None
        case ast.BinOp(left, ast.Div() | ast.FloorDiv(), right):
            return unit_of(left) if unit_of(right) is None else None
        case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mod() | ast.Mult(), right):
            return unit_of(left) or unit_of(right)
        case ast.UnaryOp(_, operand):
            return unit_of(operand)
        case ast.IfExp(_, body, orelse):
            return unit_of(body) or unit_of(orelse)
        case ast.BoolOp(_, values):
            return next(iter(units_of(values)), None)
        case ast.NamedExpr(_, value) | ast.Await(value):
            return unit_of(value)
        case _:
            return None


def units_of(nodes: list[ast.expr]) -> list[Unit]:
    """The units of those that have one."""
    return [unit for node in nodes if (unit := unit_of(node)) is not None]


def parameters(trees: list[ast.Module]) -> dict[str, list[str]]:
    """The names of the positional parameters of each function and class, without ``self``, where a name has one meaning."""
    found: dict[str, list[list[str]]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.setdefault(node.name, []).append(_parameters(node))
            elif isinstance(node, ast.ClassDef):
                made = next(
                    (part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"), None
                )
                if made is not None:
                    found.setdefault(node.name, []).append(_parameters(made))
    return {name: many[0] for name, many in found.items() if all(one == many[0] for one in many)}


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def _together(node: ast.AST, known: dict[str, list[str]]) -> Iterator[list[Unit]]:  # noqa: C901 - as above
    """The units of what a node puts together."""
    match node:
        case ast.BinOp(left, ast.Add() | ast.Sub(), right):
            yield units_of([left, right])
        case ast.Compare(left, _, comparators):
            yield units_of([left, *comparators])
        case ast.IfExp(_, body, orelse):
            yield units_of([body, orelse])
        case ast.BoolOp(ast.Or(), values):
            yield units_of(values)
        case (
            ast.Assign([target], value)
            | ast.NamedExpr(target, value)
            | ast.AugAssign(target, ast.Add() | ast.Sub(), value)
        ):
            yield units_of([target, value])
        case ast.AnnAssign(target, _, ast.expr() as value):
            yield units_of([target, value])
        case ast.FunctionDef(name, _, body) | ast.AsyncFunctionDef(name, _, body):
            for part in body:
                for inner in ast.walk(part):
                    if isinstance(inner, ast.Return):
                        yield [*units_of([ast.Name(name)]), *units_of([inner.value] if inner.value else [])]
        case ast.Call(func, args, keywords):
            name = _name(func)
            if name in SAME_UNIT and len(args) > 1 and name != "round":
                yield units_of(args)
            if name in IN_SECONDS and args:
                yield ["s", *units_of(args[-1:])]
            for keyword in keywords:
                unit = "s" if keyword.arg == "timeout" and name not in known else unit_named(keyword.arg or "")
                yield [*([unit] if unit else []), *units_of([keyword.value])]
            if not any(isinstance(argument, ast.Starred) for argument in args):
                for parameter, argument in zip(known.get(name, ()), args, strict=False):
                    yield units_of([ast.Name(parameter), argument])
        case _:
            return


def mixtures(name: str, tree: ast.Module, known: dict[str, list[str]]) -> list[str]:
    """Complains of expressions that put seconds and milliseconds together."""
    return [
        f"{name}:{getattr(node, 'lineno', 0)}: {ast.unparse(node).partition(chr(10))[0]}"
        for node in ast.walk(tree)
        for units in _together(node, known)
        if len(set(units)) > 1
    ]


def test_seconds_and_milliseconds_never_meet() -> None:
    known = parameters([*TREES.values()])

    assert [line for name, tree in TREES.items() for line in mixtures(name, tree, known)] == []


@pytest.mark.parametrize(
    "source",
    [
        "until = clock.monotonic() + LEAVE_S",
        "due_ms = monotonic_s() + 5",
        "if left_ms > LAST_S: pass",
        "run(task, monotonic_s)",
        "run(task, monotonic_ms=monotonic_s)",
        "time.sleep(BEAT_MS)",
        "event.wait(timeout=max(0.0, due - clock.monotonic()))",
        "storage.wait([scope], POLL_MS)",
        "x = LOOK_MS or LOOK_SECONDS",
        "def left_s(): return end_ms - 3",
        "pause(seconds=2 * BEAT_MS)",
        "end_s += PAUSE_MS",
    ],
)
def test_a_mixture_is_noticed(source: str) -> None:
    assert mixtures("", ast.parse(source), {"run": ["task", "monotonic_ms"]})


@pytest.mark.parametrize(
    "source",
    [
        "until = clock.monotonic() + LEAVE_S * 1000",
        "due_ms = monotonic_ms() + 2 * BEAT_MS",
        "run(task, clock.monotonic)",
        "time.sleep(BEAT_MS / 1000)",
        "event.wait(max(0.0, due - clock.monotonic()) / 1000)",
        "end_s = start_s + max(PAUSE_S, 0.5)",
    ],
)
def test_one_unit_is_no_mixture(source: str) -> None:
    assert mixtures("", ast.parse(source), {"run": ["task", "monotonic_ms"]}) == []

"""What is said of arguments that do not fit: which one, where in it, what is expected, and never what it holds.

Such a sentence goes into errors, logs and dead records, which more people read than may read arguments. msgspec and pydantic
quote values and keys in some of their messages, and the validators of a user's class may quote anything. So what msgspec
says is used only where it is known to speak of the declaration alone; of an exception that other code raised, its type and
the line that raised it are told, which say what to look at.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from jobqueue.texts import said, type_name

__all__ = ["TOO_DEEP", "UNDECLARED", "Refused", "reason", "told"]

UNDECLARED: Final = "it has a field that is not declared"
TOO_DEEP: Final = "it is nested too deep, or contains itself"

_PLACE: Final = re.compile(r"(.*) - at (`key` in )?`\$(.*)`", re.DOTALL)
"""What a message of msgspec ends with, if it knows a place. The names in it are declared ones; keys are written as `...`."""
_DECLARED: Final = re.compile(
    r"Expected .*|Object missing required field `.*|(?:Integer value|Number|Duration|Timestamp) (?:is )?out of range.*"
    r"|Invalid (?:RFC3339|ISO8601|UUID|base64|decimal|epoch|UTF-8).*|Only (?:units|dicts) .*|Input data was truncated"
    r"|JSON is malformed: .*|Encoding objects of type .*|Exceeds the limit .*|unhashable type: .*",
    re.DOTALL,
)
"""Messages of msgspec that have nothing in them but types, bounds and patterns of the declaration, and positions."""
_QUOTING: Final = {
    "Invalid enum value ": "it is not a valid value of the declared Enum or Literal",
    "Invalid value ": "it is not a valid tag of the declared classes",
    "Object contains unknown field ": UNDECLARED,
}
"""How messages begin that quote a value, and what is said instead."""
_LONGEST: Final = 200


class Refused(ValueError):
    """A value does not fit, in words of this library.

    Args:
        problem: What is wrong; no part of the value.
        path: Where, inside of what was looked at.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.path = path


def told(error: Exception) -> tuple[str, str]:
    """Answer what is wrong with arguments, by the exception that they led to, and the path to it if that is known."""
    text, path, of_key = said(error), "", ""
    origin: BaseException = error
    if isinstance(error, msgspec.ValidationError):
        origin = error.__cause__ or error
        if found := _PLACE.fullmatch(text):
            text, of_key, path = found[1], found[2] and "a key: ", found[3]
    if isinstance(origin, Refused):
        path += origin.path
    return f"{of_key or ''}{reason(origin, text)}", path if len(path) <= _LONGEST else f"{path[:_LONGEST]}…"


def reason(error: BaseException, text: str = "") -> str:
    """Answer what an exception says of a value that does not fit, without the value.

    Args:
        error: What was raised.
        text: What it says, if msgspec raised it.
    """
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, RecursionError):
        return TOO_DEEP
    if place := _foreign(error):
        return f"the code of a class raised {type_name(type(error))} {place}"
    if isinstance(error, UnicodeError):
        return "it contains half of a surrogate pair, which has no form in UTF-8"
    if instead := next((words for begin, words in _QUOTING.items() if text.startswith(begin)), None):
        return instead
    return text if _DECLARED.fullmatch(text) else f"it does not fit its declaration ({type_name(type(error))})"


def _foreign(error: BaseException) -> str | None:
    """Where other code than this library's raised an exception, or None."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return None
    code, module = trace.tb_frame.f_code, trace.tb_frame.f_globals.get("__name__")
    if isinstance(module, str) and module.partition(".")[0] == "jobqueue":
        return None
    return f"in {code.co_name} ({code.co_filename}, line {trace.tb_lineno})"

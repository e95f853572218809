"""The URL of a storage, looked at before anything else reads it: no part of it is dropped, and no error shows a secret.

An error says what is wrong and never repeats what it found: a password with a raw ``/`` is a path to whoever reads it. It
is raised where no other error is being handled, so that it carries none along that would show it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Final, TypeAlias
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_to_bytes, urlsplit

from jobqueue.errors import DeclarationError
from jobqueue.storage.limits import limits_in
from jobqueue.storage.tls import ALLOWED, TLS_SETTINGS, Tls, is_yes, tls_of

__all__ = [
    "REDIS_SCHEMES",
    "Address",
    "Url",
    "addresses",
    "check_url",
    "labelled",
    "redacted",
    "shown",
    "similar_setting",
    "tls_in",
    "without_secrets",
]

REDIS_SCHEMES: Final = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_SCHEMES: Final = (*REDIS_SCHEMES, "memory", "embedded")
Address: TypeAlias = tuple[str, int]
_SENT_ONCE: Final = "nothing is ever sent twice by a connection"
_IN_THE_URL: Final = "the URL itself says it"
UNUSED: Final = {
    "host": _IN_THE_URL, "port": _IN_THE_URL, "path": _IN_THE_URL, "connection_class": "the scheme decides that",
    "event_dispatcher": "nothing listens to it", "credential_provider": "a URL holds no object: put user and password in",
    "redis_connect_func": "a URL holds no function",
    "protocol": "RESP2 is spoken", "health_check_interval": "a connection is looked at before each use",
    "retry": _SENT_ONCE, "retry_on_timeout": _SENT_ONCE, "retry_on_error": _SENT_ONCE,
    "socket_connect_timeout": "timeout= bounds the whole call, connecting as well",
}  # fmt: skip
"""Settings that redis-py has for its connections and that would be dropped silently, with the reason."""
USED: Final = (
    "db", "username", "password", "client_name", "timeout", "socket_timeout", "max_connections", "socket_keepalive",
    "socket_read_size", "socket_type", "encoding", "decode_responses",
    "sentinel_username", "sentinel_password", *TLS_SETTINGS, ALLOWED,
)  # fmt: skip
"""Settings that an error may name. Any other name may be a part of a password with a raw ``&``."""
_OF_THE_QUEUE: Final = ("namespace", "imports", "queues", "max_payload", "allow_eviction")
_LOGIN: Final = ("username", "password")
ENCODE: Final = (
    "percent-encode it: [ is %5B, ] is %5D, / is %2F, ? is %3F, # is %23, @ is %40, % is %25 and a space is %20, "
    "as urllib.parse.quote(password, safe='') writes them"
)


def check_url(url: str, *, allow_unverified_tls: bool = False) -> str:
    """Answer the URL unchanged if something here can open it, and every part of it means something.

    Args:
        url: The URL.
        allow_unverified_tls: Accept settings with which the server is not verified, as ``?allow_unverified_tls=yes`` does.

    Raises:
        DeclarationError: Nothing can, or a part of it would be dropped silently. Says neither user nor password.
    """
    if not isinstance(url, str):
        raise DeclarationError(f"a URL is a string, such as redis://localhost:6379/0, not a {type(url).__name__}")
    url = Url(url)
    try:
        _check(url, allow_unverified_tls)
    except DeclarationError as error:
        refusal = error.with_traceback(None)
    else:
        return url
    raise refusal  # without the frames of what looked at its parts, whose variables hold them


def _check(url: str, allow_unverified_tls: bool) -> None:
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        begins = f" that begins with {scheme!r}" if colon and "@" not in url and scheme.isalpha() else ""
        raise DeclarationError(f"no storage is known for a URL{begins}: it must begin with one of {known}")
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", url):
        raise DeclarationError(
            f"the {scheme}:// URL holds a line break, another control character, or bytes that are no UTF-8: leave it out "
            "or percent-encode it"
        )
    if scheme in REDIS_SCHEMES:
        _check_login(scheme, rest)
    url = limits_in(url)[0]
    parts = _parts(url)
    if parts is None:
        raise DeclarationError(
            f"the host in the {scheme}:// URL cannot be read: look at its brackets; if a password is meant, {ENCODE}"
        )
    if "#" in url:
        raise DeclarationError(
            f"what follows # in the {scheme}:// URL would be dropped: write a # that belongs to it as %23"
        )
    if scheme == "memory" and url != "memory://":
        raise DeclarationError("memory:// has nothing behind it: what is kept there belongs to one JobQueue")
    if scheme == "embedded":
        _check_folder(parts, url)
    elif scheme != "memory":
        _check_server(parts)
        _check_settings(parts)
        tls_in(parts, allow_unverified_tls=allow_unverified_tls)


def _parts(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None  # its own words may show the password


def _check_login(scheme: str, rest: str) -> None:
    """Refuse user and password with a character that ends them, so that what follows would be read as something else."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest[len(authority) :]
    login, at, _ = authority.rpartition("@")
    raw = "@" in behind and (scheme != "unix" or authority != "")
    raw = raw or "[" in login or "]" in login or (at != "" and _parts(f"//{login}@host") is None)
    if raw or re.search(r"%(?![0-9a-fA-F]{2})", login):
        raise DeclarationError(
            f"the {scheme}:// URL has a character in its user or password, or an @ behind its host, that means something "
            f"else there: {ENCODE}"
        )
    if not _is_utf8(unquote_to_bytes(login)):
        raise DeclarationError(f"user or password in the {scheme}:// URL are not UTF-8 when they are percent-decoded")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _check_folder(parts: SplitResult, url: str) -> None:
    if "?" in url:
        raise DeclarationError("an embedded:// URL has no settings: write a ? that belongs to the folder's name as %3F")
    if parts.netloc or len(parts.path) < 2:
        # embedded://data would be a host, and silently the wrong directory.
        raise DeclarationError(
            "the embedded:// URL names no directory: write its absolute path, as in embedded:///var/lib/shop"
        )
    if re.search(rb"[\x00-\x1f\x7f]", unquote_to_bytes(parts.path)):
        raise DeclarationError("the name of the directory in the embedded:// URL holds a control character")


def _check_server(parts: SplitResult) -> None:
    scheme, hosts, path = parts.scheme, parts.netloc.rpartition("@")[2], parts.path.removeprefix("/")
    if scheme == "unix":
        if hosts or not path:
            raise DeclarationError("a unix:// URL has the path of a socket, as in unix:///run/redis.sock")
        return
    several = "+" in scheme
    if "," in hosts and not several:
        raise DeclarationError(
            f"a {scheme}:// URL names one server: for several use {scheme}+sentinel:// or {scheme}+cluster://"
        )
    if several and "@" in parts.netloc.rpartition("@")[0]:
        raise DeclarationError(
            f"user and password stand once in a {scheme}:// URL, before its first host; if an @ of a password is "
            f"meant, {ENCODE}"
        )
    if not all(map(_has_port, hosts.split(","))):
        raise DeclarationError(f"the port in the {scheme}:// URL is no number from 1 to 65535")
    if scheme.endswith("+sentinel"):
        service, _, path = path.partition("/")
        if not service:
            raise DeclarationError(f"the name of the service is missing: {scheme}://host:port/SERVICE/0")
    if scheme.endswith("+cluster") and path not in ("", "0"):
        raise DeclarationError(f"a cluster has only the database 0: the {scheme}:// URL ends with /0 or with its hosts")
    if path and not (path.isascii() and path.isdigit()):
        raise DeclarationError(f"the path of a {scheme}:// URL ends with the number of a database, as in /0")


def _has_port(host: str) -> bool:
    try:
        return urlsplit(f"//{host}").port != 0  # a client would take 0 for none, and the usual port instead
    except ValueError:
        return False


def _check_settings(parts: SplitResult) -> None:
    where = f"in the {parts.scheme}:// URL"
    seen: set[str] = set(_LOGIN) if "@" in parts.netloc else set()
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        shown = f"the setting {name!r}" if name in USED or name in UNUSED else "a setting"
        if not value:
            raise DeclarationError(f"{shown} {where} has no value: write an & that belongs to a value as %26")
        if name in seen:
            raise DeclarationError(f"{shown} {where} stands twice")
        if name == "db" and parts.scheme != "unix":
            raise DeclarationError(f"the database of a {parts.scheme}:// URL is its path, as in /3, not a setting")
        if name in UNUSED:
            raise DeclarationError(f"{shown} {where} is not used here: {UNUSED[name]}")
        if name.startswith("sentinel_") and name in USED and not parts.scheme.endswith("+sentinel"):
            raise DeclarationError(f"{shown} {where} is for sentinels, which no {parts.scheme}:// URL has")
        if (name.startswith("ssl_") or name == ALLOWED) and not parts.scheme.startswith("rediss"):
            other = "" if parts.scheme == "unix" else f": write {parts.scheme.replace('redis', 'rediss', 1)}://"
            raise DeclarationError(f"{shown} {where} is for TLS, which is not spoken there{other}")
        seen.add(name)
    for setting in parts.query.split("&"):
        name, _, value = setting.partition("=")
        if name.endswith(_LOGIN) and re.search(r"[+ ]|%(?![0-9a-fA-F]{2})", value):
            raise DeclarationError(f"{name} {where} has a raw +, % or space: write them as %2B, %25 and %20")


def tls_in(parts: SplitResult, *, allow_unverified_tls: bool = False) -> Tls | None:
    """How TLS is spoken with the server of a URL; None if it is not.

    Raises:
        DeclarationError: A setting cannot be, or leaves the server unverified and nobody allows that.
    """
    if not parts.scheme.startswith("rediss"):
        return None
    where = f"in the {parts.scheme}:// URL"
    settings = dict(parse_qsl(parts.query))
    allowed = settings.get(ALLOWED)
    if allowed is not None and not _is_switch(allowed):
        raise DeclarationError(f"the setting {ALLOWED!r} {where} is yes or no")
    allow_unverified_tls = allow_unverified_tls if allowed is None else is_yes(allowed)
    return tls_of(settings, where, allow_unverified_tls=allow_unverified_tls)


def _is_switch(text: str) -> bool:
    try:
        is_yes(text)
    except ValueError:
        return False
    return True


def similar_setting(name: str) -> str:
    """What may have been meant by a setting that nothing knows, as an end of a sentence. The name itself is not repeated."""
    if name in _OF_THE_QUEUE:
        return f": write JobQueue(url, {name}=…)"
    found = difflib.get_close_matches(name, USED, 1)
    return f": did you mean {found[0]!r}?" if found else ""


class Url(str):
    """A URL that shows neither user nor password where its repr is shown: in debuggers, and in tracebacks with variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{redacted(self)}>"


def redacted(url: str) -> str:
    """The URL as it may be printed: without user, password and settings; less of it where it cannot be read."""
    scheme = url.partition("://")[0]
    try:
        parts = urlsplit(check_url(url, allow_unverified_tls=True))
    except DeclarationError:
        return f"{scheme}://…" if scheme in _SCHEMES else "a URL that cannot be read"
    if scheme in ("unix", "embedded", "memory"):
        return f"{scheme}://{unquote(parts.path)}"
    first, _, database = parts.path.strip("/").partition("/")
    service, database = (first, database) if scheme.endswith("+sentinel") else ("", first)
    return labelled(scheme, addresses(parts), unquote(service), int(database or 0))


def labelled(scheme: str, nodes: Sequence[Address], service: str, database: int) -> str:
    """What to call servers in messages: the one form of a URL that is printed."""
    path = [str(part) for part in (service, database) if part]
    return "/".join([f"{scheme}://{','.join(shown(*node) for node in nodes)}", *path])


def shown(host: str, port: int) -> str:
    """An address as a URL has it: one of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses(parts: SplitResult) -> tuple[Address, ...]:
    """The hosts of a URL of Redis, and their ports."""
    usual = 26379 if parts.scheme.endswith("+sentinel") else 6379
    hosts = parts.netloc.rpartition("@")[2]
    if "+" in parts.scheme:
        return tuple([_address(host, usual) for host in hosts.split(",")])
    return (_address(hosts.lower() or "localhost", usual),)


def _address(text: str, port: int) -> Address:
    host, colon, given = text.rpartition(":")
    if colon and not given.endswith("]"):
        return host.strip("[]") or "localhost", int(given or port)
    return text.strip("[]"), port


def without_secrets(text: str) -> str:
    """The text of somebody else with each URL in it redacted that may hold a secret."""
    return _PART.sub(lambda found: _without_secret(found[0]), text)


def _without_secret(part: str) -> str:
    """A part of a text, which holds one URL at most."""
    scheme, mark, rest = part.partition("://")
    begin = _SCHEME.search(scheme[-LONGEST_SCHEME:])
    if not mark or begin is None or not ("@" in rest or "?" in rest):
        return part
    return f"{scheme[: len(scheme) - len(begin[0])]}{redacted(f'{begin[0]}{mark}{rest}')}"


LONGEST_SCHEME: Final = 30
_SCHEME: Final = re.compile(r"[A-Za-z][\w+.-]*$")
# Each character is looked at once: the text may be of any length, and hold whatever somebody left in the storage.
_QUOTED: Final = r"""(?<=%s)[A-Za-z][\w+.-]{0,30}://(?:[^%s\\\n]|\\.)*+"""
_PART: Final = re.compile(rf"""{_QUOTED % ('"', '"')}|{_QUOTED % ("'", "'")}|[^\s"']+""")

"""What the settings ``ssl_…`` of a URL or a client mean: how TLS is spoken, and how a server's certificate is verified.

They have the names that redis-py gives them, and mean the same with each of its releases and with both of its flavours: it
lets some of them fall for coroutines, and before its release 6 it does not look at the name of the host.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from ssl import TLSVersion, VerifyFlags, VerifyMode
from typing import Any, Final

import attrs

from jobqueue.errors import DeclarationError

__all__ = ["ALLOWED", "TLS_SETTINGS", "Tls", "is_yes", "tls_of"]

ALLOWED: Final = "allow_unverified_tls"
_TRUE: Final = ("1", "y", "yes", "t", "true", "on")
_FALSE: Final = ("0", "n", "no", "f", "false", "off")
_MODES: Final = {
    "none": VerifyMode.CERT_NONE,
    "optional": VerifyMode.CERT_OPTIONAL,
    "required": VerifyMode.CERT_REQUIRED,
}
_OLDEST: Final = TLSVersion.TLSv1_2
_NO_FLAGS: Final = VerifyFlags(0)


@attrs.frozen
class Tls:
    """How TLS is spoken.

    Attributes:
        keyfile: Path of the key of the client's certificate.
        certfile: Path of the client's certificate.
        password: What the key is encrypted with.
        ca_certs: Path of the certificates to trust, instead of those of the system.
        ca_path: Path of a folder of such certificates.
        ca_data: Such certificates as text (PEM) or bytes (DER).
        cert_reqs: Whether the server's certificate is verified.
        check_hostname: Whether it has to be one of the host that was asked for.
        min_version: The oldest version of TLS; None for Python's choice, which is 1.2.
        ciphers: Which ciphers are allowed, in the words of OpenSSL.
        include_verify_flags: Flags that are set.
        exclude_verify_flags: Flags that are taken away, after that.
    """

    keyfile: str | None = None
    certfile: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    ca_certs: str | None = None
    ca_path: str | None = None
    ca_data: str | bytes | None = attrs.field(default=None, repr=False)
    cert_reqs: VerifyMode = VerifyMode.CERT_REQUIRED
    check_hostname: bool = True
    min_version: TLSVersion | None = None
    ciphers: str | None = None
    include_verify_flags: VerifyFlags = _NO_FLAGS
    exclude_verify_flags: VerifyFlags = _NO_FLAGS

    @property
    def unverified(self) -> str | None:
        """The setting that leaves the server unverified; None if it is verified."""
        if self.cert_reqs is not VerifyMode.CERT_REQUIRED:
            return f"ssl_cert_reqs={self.cert_reqs.name.removeprefix('CERT_').lower()}"
        return None if self.check_hostname else "ssl_check_hostname=false"


class _Unfit(Exception):
    """A value that cannot be; its text ends the sentence about its setting."""


def is_yes(value: object) -> bool:
    """Answer whether a switch is on, as it is written in a URL or in code. Raises `ValueError`: it is neither."""
    if isinstance(value, bool):
        return value
    text = value.lower() if isinstance(value, str) else ""
    if text not in (*_TRUE, *_FALSE):
        raise ValueError
    return text in _TRUE


def _switch(value: object) -> bool:
    try:
        return is_yes(value)
    except ValueError:
        raise _Unfit("is yes or no") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _Unfit("is a string")
    return value


def _text_or_bytes(value: object) -> str | bytes:
    return value if isinstance(value, bytes) else _text(value)


def _mode(value: object) -> VerifyMode:
    found = _MODES.get(value) if isinstance(value, str) else value
    if not isinstance(found, VerifyMode):
        raise _Unfit(f"is one of {', '.join(_MODES)}")
    return found


def _version(value: object) -> TLSVersion:
    try:
        found = TLSVersion(int(value))  # type: ignore[call-overload]
    except (TypeError, ValueError):
        found = TLSVersion.MINIMUM_SUPPORTED
    if found < _OLDEST:
        raise _Unfit("is 771 for TLS 1.2 or 772 for TLS 1.3; nothing older is spoken")
    return found


def _flags(value: object) -> VerifyFlags:
    names: object = [part.strip() for part in value.strip("[]").split(",")] if isinstance(value, str) else value
    found = _NO_FLAGS
    for name in names if isinstance(names, Iterable) else [names]:
        flag = VerifyFlags.__members__.get(name) if isinstance(name, str) else name
        if not isinstance(flag, VerifyFlags):
            raise _Unfit("is a list of flags of ssl.VerifyFlags, such as VERIFY_X509_STRICT")
        found |= flag
    return found


_READERS: Final[Mapping[str, Callable[[object], Any]]] = {
    "keyfile": _text, "certfile": _text, "password": _text, "ca_certs": _text, "ca_path": _text, "ca_data": _text_or_bytes,
    "cert_reqs": _mode, "check_hostname": _switch, "min_version": _version, "ciphers": _text,
    "include_verify_flags": _flags, "exclude_verify_flags": _flags,
}  # fmt: skip
TLS_SETTINGS: Final = tuple([f"ssl_{name}" for name in _READERS])
_TRUSTED: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_ca_data")
_OCSP: Final = ("ssl_validate_ocsp", "ssl_validate_ocsp_stapled", "ssl_ocsp_context", "ssl_ocsp_expected_cert")


def tls_of(settings: Mapping[str, object], where: str, *, allow_unverified_tls: bool = False) -> Tls:
    """How TLS is spoken with these settings.

    Args:
        settings: Those of a URL, as text, or of a client. Those without ``ssl_`` are let pass.
        where: Whose they are, for an error: ``in the rediss:// URL``.
        allow_unverified_tls: Accept that the server is not verified.

    Raises:
        DeclarationError: One of them cannot be, contradicts another, or leaves the server unverified. No value is shown.
    """
    found: dict[str, Any] = {}
    for setting, value in settings.items():
        name = setting.removeprefix("ssl_")
        if setting in _OCSP and value:
            raise DeclarationError(
                f"the setting {setting!r} {where} is not used here: redis-py asks a third server for OCSP, with no bound "
                "in time, and does not ask at all for coroutines. Use certificates that end soon"
            )
        if name == setting or value in (None, "") or (name not in _READERS and not value):
            continue
        if name not in _READERS:
            meant = difflib.get_close_matches(setting, TLS_SETTINGS, 1)
            hint = f": did you mean {meant[0]!r}?" if meant else ""
            raise DeclarationError(f"a setting ssl_… {where} is not known here{hint}")
        try:
            found[name] = _READERS[name](value)
        except _Unfit as unfit:
            problem = str(unfit)
        else:
            continue
        raise DeclarationError(f"the setting {setting!r} {where} {problem}")
    tls = Tls(**found)
    if contradiction := _contradiction(tls, settings):
        raise DeclarationError(f"{contradiction} {where}")
    if tls.unverified and not allow_unverified_tls:
        raise DeclarationError(
            f"{tls.unverified} {where} lets anybody between here and the server pass for it, and read and change all: name "
            f"the certificates to trust with ssl_ca_certs, or, if that is meant, write {ALLOWED}=True (JobQueue) or "
            f"?{ALLOWED}=yes (URL)"
        )
    return tls


def _contradiction(tls: Tls, settings: Mapping[str, object]) -> str | None:
    for named, setting in ((tls.keyfile, "ssl_keyfile"), (tls.password, "ssl_password")):
        if named and not tls.certfile:
            return f"{setting} belongs to the certificate of a client, and ssl_certfile is missing"
    if tls.cert_reqs is VerifyMode.CERT_NONE:
        # A client says what its defaults are as well; what stands in a URL was written there.
        meant = [name for name in _TRUSTED if settings.get(name)]
        if tls.check_hostname and isinstance(settings.get("ssl_check_hostname"), str):
            meant.append("ssl_check_hostname")
        if meant:
            return f"ssl_cert_reqs=none, with which nothing is verified, contradicts {meant[0]}"
    return None

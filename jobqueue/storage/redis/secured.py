"""Connections of redis-py that speak TLS as `Tls` says.

The library's own are not used: its settings mean other things in other releases, and less for coroutines than for threads.
"""

from __future__ import annotations

import ssl
from typing import Any

from redis.asyncio.connection import Connection as AsyncConnection
from redis.connection import Connection

from jobqueue.storage.tls import Tls

__all__ = ["AsyncSecured", "Secured", "unusable"]


def _context(tls: Tls) -> ssl.SSLContext:
    """Made anew for each connection, since certificates are renewed while a runner runs."""
    context = ssl.create_default_context(cafile=tls.ca_certs, capath=tls.ca_path, cadata=tls.ca_data)
    context.check_hostname = tls.check_hostname and tls.cert_reqs is not ssl.CERT_NONE
    context.verify_mode = tls.cert_reqs
    context.verify_flags |= tls.include_verify_flags
    context.verify_flags &= ~tls.exclude_verify_flags
    if tls.min_version is not None:
        context.minimum_version = tls.min_version
    if tls.ciphers is not None:
        context.set_ciphers(tls.ciphers)
    if tls.certfile is not None:
        # Without a password OpenSSL would ask whoever sits at the terminal for one.
        context.load_cert_chain(tls.certfile, tls.keyfile, tls.password or "")
    return context


def unusable(tls: Tls) -> str | None:
    """Why its files or ciphers cannot be used, in a few words that show no value; None if they can."""
    try:
        context = _context(tls)
    except ssl.SSLError as error:
        reason: str | None = getattr(error, "reason", None)
        return (reason or "OpenSSL does not say why").replace("_", " ").lower()
    except OSError as error:
        return error.strerror or type(error).__name__
    except ValueError:
        return "a value that OpenSSL does not understand"
    if any(cipher["auth"] == "auth-null" or not cipher["strength_bits"] for cipher in context.get_ciphers()):
        return "ssl_ciphers allows some that verify nobody or encrypt nothing"
    return None


class Secured(Connection):
    """A connection for threads."""

    def __init__(self, *, tls: Tls, **settings: Any) -> None:
        self._tls = tls
        made: Any = super()
        made.__init__(**settings)

    def _connect(self) -> ssl.SSLSocket:
        connect: Any = super()
        plain = connect._connect()  # noqa: SLF001 - where the library makes its socket
        try:
            return _context(self._tls).wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


class AsyncSecured(AsyncConnection):
    """The same for event loops."""

    def __init__(self, *, tls: Tls, **settings: Any) -> None:
        self._tls = tls
        made: Any = super()
        made.__init__(**settings)

    def _connection_arguments(self) -> dict[str, Any]:
        arguments: Any = super()._connection_arguments()
        return {**arguments, "ssl": _context(self._tls)}

    async def disconnect(self, *how: Any, **more: Any) -> None:
        """Close at once: the goodbye of TLS takes a round trip, which a loop that ends does not wait for."""
        writer: Any = self._writer
        if writer is not None:
            writer.transport.abort()
        await super().disconnect(*how, **more)

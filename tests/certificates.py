"""Certificates of an authority that a test makes, and what is wrong with some of them."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["BAD", "Certificates", "speaks_tls"]

BAD: Final = {"other-host": "Hostname mismatch", "expired": "expired", "self-signed": "self-signed"}
"""Certificate of a server → a word of why a client has to refuse it."""
_STRICT: Final = "basicConstraints=CA:FALSE\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
"""What Python wants to see from 3.13 on."""
_NAMES: Final = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Certificates:
    """An authority (``ca``) and the certificates that it made.

    ``server`` is right for localhost, and ``client`` for a user; the key of ``locked`` is encrypted with `PASSWORD`.
    """

    PASSWORD: Final = "sEcReT key"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._make_self_signed("ca", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        self._make_self_signed("self-signed", "-addext", _NAMES)
        self._sign("server", _NAMES)
        self._sign("other-host", "subjectAltName=DNS:elsewhere.example,IP:10.9.8.7")
        self._sign("expired", _NAMES, days=-1)
        self._sign("client", "extendedKeyUsage=clientAuth")
        shutil.copy(self.file("client"), self.file("locked"))
        plain = ("-in", self.key("client"), "-out", self.key("locked"))
        self._run("ec", *plain, "-aes256", "-passout", f"pass:{self.PASSWORD}")

    def file(self, name: str) -> str:
        """The path of a certificate."""
        return str(self._folder / f"{name}.pem")

    def key(self, name: str) -> str:
        """The path of its key."""
        return str(self._folder / f"{name}.key")

    def write_both(self, name: str, where: Path) -> None:
        """Write a certificate and its key into one file."""
        where.write_text(Path(self.file(name)).read_text() + Path(self.key(name)).read_text())

    def shown_by(self, name: str) -> tuple[str, ...]:
        """The settings of a server that shows this certificate."""
        return ("tls-cert-file", self.file(name), "tls-key-file", self.key(name))

    def _make_self_signed(self, name: str, *more: str) -> None:
        new = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
        self._run("req", *new, "-subj", f"/CN={name}", "-keyout", self.key(name), "-out", self.file(name), *more)

    def _sign(self, name: str, extension: str, days: int = 1) -> None:
        request, settings = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        settings.write_text(f"{_STRICT}{extension}\n")
        new = ("-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}")
        self._run("req", *new, "-keyout", self.key(name), "-out", str(request))
        by = ("-CA", self.file("ca"), "-CAkey", self.key("ca"), "-CAcreateserial", "-extfile", str(settings))
        self._run("x509", "-req", "-in", str(request), *by, "-days", str(days), "-out", self.file(name))

    @staticmethod
    def _run(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)


@cache
def speaks_tls(binary: Path | None) -> bool:
    """Whether a server's program was built with TLS, and there is an openssl to make certificates with."""
    if binary is None or shutil.which("openssl") is None:
        return False
    words = [str(binary), "--port", "0", "--tls-port", "1"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    return "tls-cert-file" in told.stdout  # it misses its certificate, instead of TLS as a whole

"""Settings of TLS in a URL: what leaves a server unverified has to be allowed, and what cannot be is refused at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from jobqueue import DeclarationError, JobQueue
from jobqueue.backend import open_backend
from jobqueue.storage.redis import RedisServer

SCHEMES = ("rediss://h", "rediss+sentinel://h/shop", "rediss+cluster://h")


@pytest.mark.parametrize("base", SCHEMES)
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("ssl_cert_reqs=none", "ssl_cert_reqs=none"), ("ssl_cert_reqs=optional", "ssl_cert_reqs=optional"),
        ("ssl_check_hostname=false", "ssl_check_hostname=false"), ("ssl_check_hostname=No", "ssl_check_hostname=false"),
        ("ssl_check_hostname=0", "ssl_check_hostname=false"), ("%73sl_cert_reqs=none", "ssl_cert_reqs=none"),
        ("allow_unverified_tls=no&ssl_cert_reqs=none", "ssl_cert_reqs=none"),
    ],
)  # fmt: skip
def test_a_server_that_nobody_verifies_has_to_be_allowed(
    base: str, setting: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{base}?{setting}"
    with pytest.raises(DeclarationError, match=f"^{told} in the rediss.*allow_unverified_tls=yes"):
        JobQueue(url)
    with pytest.raises(DeclarationError, match=told):
        JobQueue("memory://").relocate(url=url)
    monkeypatch.setenv("JOBQUEUE_URL", url)
    with pytest.raises(DeclarationError, match=told):
        JobQueue().counts()
    if "allow" not in setting:
        JobQueue(url, allow_unverified_tls=True).access.opened().close()
        JobQueue(allow_unverified_tls=True).access.opened().close()
        JobQueue(f"{url}&allow_unverified_tls=yes").access.opened().close()
        with pytest.raises(DeclarationError, match=told):
            JobQueue(f"{url}&allow_unverified_tls=no", allow_unverified_tls=True)


@pytest.mark.parametrize("base", SCHEMES)
@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("ssl_validate_ocsp=true", "OCSP"), ("ssl_validate_ocsp_stapled=1", "OCSP"), ("ssl_ocsp_context=x", "OCSP"),
        ("ssl_ocsp_expected_cert=x", "OCSP"), ("ssl_cert_reqs=CERT_NONE", "is one of none, optional, required"),
        ("ssl_check_hostname=maybe", "is yes or no"), ("allow_unverified_tls=maybe", "is yes or no"),
        ("ssl_min_version=769", "771 for TLS 1.2"), ("ssl_min_version=-2", "771"), ("ssl_min_version=TLSv1", "771"),
        ("ssl_include_verify_flags=STRICT", "VERIFY_X509_STRICT"), ("ssl_keyfile=/k", "ssl_certfile is missing"),
        ("ssl_password=x", "ssl_certfile is missing"), ("ssl_ca_cert=/c", "did you mean 'ssl_ca_certs'"),
        ("ssl_whatever=1", "is not known here"), ("ssl_cert_reqs=required&ssl_cert_reqs=none", "stands twice"),
        ("ssl_cert_reqs=none&ssl_ca_certs=/c&allow_unverified_tls=yes", "contradicts ssl_ca_certs"),
        ("ssl_cert_reqs=none&ssl_check_hostname=yes&allow_unverified_tls=yes", "contradicts ssl_check_hostname"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_is_refused_when_the_queue_is_made(base: str, setting: str, advice: str) -> None:
    with pytest.raises(DeclarationError, match=advice) as caught:
        JobQueue(f"{base}?{setting}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("ssl_ca_certs=/no/such/file", "No such file"), ("ssl_ca_data=nothing", "cannot be used"),
        ("ssl_certfile=/no/such/file", "No such file"), ("ssl_ca_certs=/dev/null", "cannot be used"),
        ("ssl_ciphers=NONSENSE", "cannot be used"), ("ssl_ciphers=aNULL:%40SECLEVEL%3D0", "verify nobody"),
        ("ssl_ciphers=ALL:eNULL:%40SECLEVEL%3D0", "verify nobody"),
    ],
)  # fmt: skip
def test_files_and_ciphers_that_cannot_be_used_are_told_before_anything_connects(setting: str, advice: str) -> None:
    with pytest.raises(DeclarationError, match=advice) as caught:
        open_backend(f"rediss://h?{setting}")
    assert "such/file" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", ["redis://h", "unix:///run/s", "redis+sentinel://h/shop", "redis+cluster://h"])
@pytest.mark.parametrize(
    "setting",
    ["ssl_ca_certs=/c", "ssl_cert_reqs=none", "ssl_validate_ocsp=1", "allow_unverified_tls=yes", "ssl_other=1"],
)
def test_settings_of_tls_are_refused_where_it_is_not_spoken(base: str, setting: str) -> None:
    with pytest.raises(DeclarationError, match="is for TLS, which is not spoken there") as caught:
        JobQueue(f"{base}?{setting}")
    assert ("write rediss" in str(caught.value)) == ("unix" not in base)


@pytest.mark.parametrize("base", ["redis://h", "rediss://h", "unix:///run/s", "redis+cluster://h"])
def test_a_login_for_sentinels_is_refused_where_none_are_asked(base: str) -> None:
    with pytest.raises(DeclarationError, match="is for sentinels"):
        JobQueue(f"{base}?sentinel_password=x")


def test_the_same_of_a_client() -> None:
    make: Any = redis.Redis
    for settings, told in (
        ({"ssl_cert_reqs": "none"}, "ssl_cert_reqs=none of this client"),
        ({"ssl_validate_ocsp": True}, "OCSP"),
        ({"ssl_ca_certs": "/no/such/file"}, "No such file"),
    ):
        with pytest.raises(DeclarationError, match=told):
            JobQueue(client=make(ssl=True, **settings))
    JobQueue(client=make(ssl=True, ssl_cert_reqs="none"), allow_unverified_tls=True)
    assert "not verified" in str(
        RedisServer.of(make(ssl=True, ssl_cert_reqs="none"), allow_unverified_tls=True)._place.warning
    )


class Tunnelled(redis.Connection):
    """A connection of an application's own."""

    def _connect(self) -> Any:
        raise AssertionError("nothing connects here")


class ForCoroutines(redis.asyncio.Connection):
    """The same for event loops."""

    async def _connect(self) -> None:
        raise AssertionError("nothing connects here")


@pytest.mark.parametrize("kind", [Tunnelled, ForCoroutines])
def test_a_client_that_connects_in_a_way_of_its_own_is_refused(kind: Any) -> None:
    """It may speak TLS, and ours would send the password in plain text."""
    wrapped: Any = type("Wrapped", (kind,), {})
    library: Any = redis if kind is Tunnelled else redis.asyncio
    client = library.Redis(connection_pool=library.ConnectionPool(connection_class=wrapped, password="x"))
    with pytest.raises(DeclarationError, match=f"a class that connects in its own way, {kind.__name__}"):
        JobQueue(client=client)
    harmless: Any = type("Named", (redis.Connection,), {"on_connect": redis.Connection.on_connect})
    JobQueue(client=redis.Redis(connection_pool=redis.ConnectionPool(connection_class=harmless)))


def test_every_setting_is_understood_by_threads_and_coroutines(tmp_path: Path) -> None:
    """Whatever the release of redis-py: some know fewer, and for coroutines fewer still."""
    url = (
        "rediss://h?ssl_min_version=772&ssl_ciphers=ECDHE%2BAESGCM&ssl_check_hostname=yes&ssl_cert_reqs=required"
        f"&ssl_include_verify_flags=VERIFY_X509_STRICT&ssl_exclude_verify_flags=[VERIFY_X509_PARTIAL_CHAIN]&ssl_ca_path={tmp_path}"
    )
    open_backend(url).close()

"""What is made of text that others wrote, and the text form of ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobqueue.safe_text import LONGEST, id_bytes, id_text, printable, quoted

HOSTILE = "a\x1b[2J\n\r\x85\u202e\u2066\ud800\x00\x9b" + "x" * 50


@given(st.text() | st.binary(), st.integers(2, 400))
def test_foreign_text_is_one_short_printable_line(text: str | bytes, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most


@given(st.text(), st.integers(2, 400))
def test_quoted_text_is_one_short_printable_line(text: str, most: int) -> None:
    shown = quoted(text, most)
    assert shown.isprintable()
    assert len(shown) <= most + 3
    assert shown[0] == shown[-1]
    assert shown[0] in "'\""


@given(st.text(max_size=LONGEST // 10))
def test_short_text_is_quoted_as_its_repr(text: str) -> None:
    assert quoted(text) == repr(text)


def test_text_of_megabytes_is_cut() -> None:
    for shown in (printable("é" * 5_000_000), printable(b"\xff" * 5_000_000), printable("\x1b" * 5_000_000)):
        assert len(shown) == LONGEST
        assert shown.endswith("…")
    assert len(printable(HOSTILE * 1000, None)) > 50_000
    assert quoted("x" * 5_000_000) == f"'{'x' * (LONGEST - 1)}…'"


def test_printable_text_stays_as_it_is() -> None:
    assert printable("grün ✓ 日本 a/b \\x") == "grün ✓ 日本 a/b \\x"
    assert printable("\x1b[2J\n\u202e") == r"\x1b[2J\n\u202e"


@given(st.binary())
def test_an_id_has_a_printable_form_that_leads_back(id: bytes) -> None:
    text = id_text(id)
    assert text.isprintable()
    assert id_bytes(text) == id
    assert printable(id, None) == printable(text, None) == text


@given(st.lists(st.sampled_from([b"\\", b"x", b"4", b"1", b"\\x41", b"\xff", b"\xc3", b"\xa9", b"\n", b" "])))
def test_the_form_of_an_id_that_looks_like_an_escape_leads_back(parts: list[bytes]) -> None:
    id = b"".join(parts)
    assert id_bytes(id_text(id)) == id


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"])))
def test_an_id_that_was_pasted_as_it_is_means_itself(text: str) -> None:
    assert id_bytes(text) == text.encode()


def test_how_ids_look() -> None:
    assert id_text(b"0193ab") == "0193ab"
    assert id_text(b"a\\b\n\xff \xc3\xa9/\xe2\x80\xae") == r"a\\b\x0a\xff é/\xe2\x80\xae"
    assert id_bytes(r"a\b\q") == rb"a\b\q"
    assert id_bytes("\udcff") == b"\xff"
    assert id_bytes(r"shop\x3ajob") == b"shop:job"
    for half in ("\ud800", "\\x41\ud800"):
        with pytest.raises(UnicodeEncodeError):
            id_bytes(half)

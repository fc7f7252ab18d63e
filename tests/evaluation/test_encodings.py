"""Files in the encodings that people use are read, or named for what they are."""

import bz2
import gzip
import lzma

import pyarrow
import pytest

from evomerge_optuna.evaluation.encodings import COMPRESSIONS, decoded, guess

JAPANESE = "りんごを三つ買いました。全部でいくらですか？\n" * 4


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "euc_jp", "utf-16", "utf-16-le"])
def test_an_encoding_that_is_named_is_read(encoding: str) -> None:
    assert decoded(JAPANESE.encode(encoding), encoding) == JAPANESE


@pytest.mark.parametrize("encoding", ["cp932", "euc_jp", "utf-16", "utf-16-le"])
def test_another_encoding_is_guessed(encoding: str) -> None:
    content = JAPANESE.encode(encoding)
    assert guess(content) == encoding
    with pytest.raises(ValueError, match=f"it looks like {encoding}: write encoding: {encoding}"):
        decoded(content, None)


def test_the_line_of_a_wrong_byte_is_named() -> None:
    with pytest.raises(ValueError, match=r"it is no UTF-8 \(byte 0xff in line 3\)"):
        decoded(b"a\nb\n\xff", None)


def test_a_byte_order_mark_is_no_text() -> None:
    assert decoded("\ufeffa".encode(), None) == "a"


@pytest.mark.parametrize(
    ("content", "cure"),
    [
        (gzip.compress(b"\x80 a", mtime=0), "name it .gz"),
        (lzma.compress(b"\x80 a"), "name it .xz"),
        (b"PK\x03\x04\x80\x80", "save it as CSV"),
    ],
)
def test_what_is_no_text_is_named(content: bytes, cure: str) -> None:
    with pytest.raises(ValueError, match=cure):
        decoded(content, None)


def test_every_compression_is_undone() -> None:
    stream = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(stream, "zstd") as file:
        file.write(b"text")
    made = {
        ".gz": gzip.compress(b"text"),
        ".bz2": bz2.compress(b"text"),
        ".xz": lzma.compress(b"text"),
        ".zst": stream.getvalue().to_pybytes(),
    }
    assert {name: undo(made[name]) for name, undo in COMPRESSIONS.items()} == dict.fromkeys(
        made, b"text"
    )

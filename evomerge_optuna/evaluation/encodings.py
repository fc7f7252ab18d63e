"""Bytes of files as text: decompressed, decoded, and what a wrong encoding looks like."""

import bz2
import gzip
import lzma
import re
from collections.abc import Callable


def _zstd(content: bytes) -> bytes:
    import pyarrow

    return bytes(pyarrow.CompressedInputStream(pyarrow.BufferReader(content), "zstd").read())


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
    ".zst": _zstd,
}
_BEGINNINGS = {
    b"\x1f\x8b": "is compressed by gzip; name it .gz",
    b"BZh": "is compressed by bzip2; name it .bz2",
    b"\xfd7zXZ": "is compressed by xz; name it .xz",
    b"\x28\xb5\x2f\xfd": "is compressed by zstd; name it .zst",
    b"PK\x03\x04": "is a zip archive or an Excel file; unpack it, or save it as CSV",
    b"PAR1": "is a Parquet file; name it .parquet",
    b"\xd0\xcf\x11\xe0": "is an old Excel file; save it as CSV",
}
# What people's files are in. The guess is charset-normalizer's, among these.
_COMMON = (
    "utf_16 utf_32 cp932 euc_jp iso2022_jp gb18030 big5 cp949 cp1252 cp1251 koi8_r cp1250 cp1253"
)
_SAMPLE = 20_000  # bytes


def decoded(content: bytes, encoding: str | None) -> str:
    """The text, without a byte order mark.

    Raises:
        ValueError: it is no text in this encoding (UTF-8 unless given); says what it looks like,
            and the cure.
    """
    try:
        text = content.decode(encoding or "utf-8")
    except (UnicodeError, ValueError) as error:
        wrong = f"it is no {encoding or 'UTF-8'}"
        if isinstance(error, UnicodeDecodeError):
            line = content[: error.start].count(b"\n") + 1
            wrong += f" (byte 0x{content[error.start]:02x} in line {line})"
        raise ValueError(f"{wrong}; {_advice(content, encoding)}") from error
    if "\0" in text:
        raise ValueError(f"it holds NUL characters; {_advice(content, encoding)}")
    if "\x1b$" in text:  # all its bytes are ASCII
        raise ValueError("it looks like iso2022_jp: write encoding: iso2022_jp")
    if any("\ud800" <= character <= "\udfff" for character in set(text)):
        raise ValueError("it holds halves of characters (surrogates)")
    return text.removeprefix("\ufeff")


def _advice(content: bytes, tried: str | None) -> str:
    for beginning, what in _BEGINNINGS.items():
        if content.startswith(beginning):
            return f"it {what}"
    found = guess(content)
    if found is None or found == tried:
        return "name its encoding as `encoding:`, as cp932"
    return f"it looks like {found}: write encoding: {found}"


def guess(content: bytes) -> str | None:
    """What the bytes' encoding looks like; None where they look like nothing."""
    if b"\0" in content[:_SAMPLE]:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return "utf-16"
        zeros = [content[:_SAMPLE][start::2].count(0) for start in (0, 1)]
        return None if zeros[0] == zeros[1] else "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be"
    sample = content[:_SAMPLE]
    if not sample.isascii():
        for encoding in ("cp932", "euc_jp"):  # kana tell, where the statistics of a short text fail
            text = sample.decode(encoding, "ignore")
            kana = len(re.findall(r"[ぁ-ヶー。、]", text))
            if kana > 0.2 * len(re.findall(r"[^\x00-\x7f]", text)):
                return encoding
    try:
        sample.decode("utf-8", "strict")
    except UnicodeDecodeError as error:
        if error.start > len(sample) - 4 and len(content) > _SAMPLE:
            return None
    else:
        return "utf-8"
    from charset_normalizer import from_bytes

    best = from_bytes(sample, cp_isolation=_COMMON.split()).best()
    return None if best is None else best.encoding

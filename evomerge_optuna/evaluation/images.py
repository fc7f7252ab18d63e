"""Images of a data set: files of any format that Pillow reads, kept as they are stored."""

from pathlib import Path

from evomerge_optuna.engines.images import open_image
from evomerge_optuna.errors import SpecError
from evomerge_optuna.explain import one_line


def image_bytes(value: object, folder: Path, where: str) -> bytes:
    """The content of an image file.

    Args:
        value: the `datasets` Image feature, not decoded, or the path of a file.
        folder: where relative paths begin.

    Raises:
        SpecError: there is no such file, or the column holds no image.
    """
    given = value if isinstance(value, dict) else {"path": value}
    stored, path = given.get("bytes"), given.get("path")
    if isinstance(stored, bytes):
        return stored
    if not isinstance(path, str):
        raise SpecError(
            f"{where}: {str(value)[:40]!r} is no image; name the column of the images, or of the "
            "paths of their files, as image"
        )
    file = folder / path
    if file.exists() and not file.is_file():  # to read from a pipe might take forever
        raise SpecError(f"{where}: the image {path} is no file; relative paths begin at {folder}")
    try:
        return file.read_bytes()
    except OSError as error:
        raise SpecError(
            f"{where}: the image {path} cannot be read: {error.strerror}; relative paths begin "
            f"at {folder}"
        ) from error


def check_image(content: bytes, where: str) -> None:
    """Refuses what is no image.

    Raises:
        SpecError: naming `where`.
    """
    try:
        open_image(content)
    except Exception as error:  # the readers of broken files raise what they like
        raise SpecError(f"{where}: an image cannot be read: {one_line(error)}") from error

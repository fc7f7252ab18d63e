"""The specs that come with the program, to be run or copied."""

from pathlib import Path

from evomerge_optuna.errors import UsageError

_HERE = Path(__file__).parent


def examples() -> dict[str, str]:
    """What each is about, its first line of comment, by name."""
    return {
        file.stem: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for file in sorted(_folder().glob("*.yaml"))
    }


def example(name: str) -> str:
    """The text of one.

    Raises:
        UsageError: there is none of this name.
    """
    if name not in (known := examples()):
        raise UsageError(f"there is no example '{name}'; there are {', '.join(known)}")
    return (_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def _folder() -> Path:
    """In the package where it was built, beside it in the source tree."""
    packaged = _HERE / "studies"
    return packaged if packaged.is_dir() else _HERE.parent / "studies"

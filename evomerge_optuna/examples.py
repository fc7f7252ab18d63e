"""The specs that come with the program, to be run or changed."""

from pathlib import Path

from evomerge_optuna.errors import UsageError
from evomerge_optuna.explain import did_you_mean

_HERE = Path(__file__).parent


def examples() -> dict[str, str]:
    """What each is about, its first line of comment, by name."""
    return {
        file.stem: file.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for file in sorted(_folder().glob("*.yaml"))
    }


def copy_example(name: str, folder: Path) -> Path:
    """Copies one into a folder, with the files of its tasks; returns the spec file.

    Raises:
        UsageError: there is none of this name, or another file is in its place.
    """
    import yaml

    if name not in (known := examples()):
        near = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"there is no example '{name}'{near}")
    spec = yaml.safe_load((_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    tasks = [task for task in spec["tasks"].values() if isinstance(task, str)]
    contents = {file: (_folder() / file).read_bytes() for file in (f"{name}.yaml", *tasks)}
    for file, content in contents.items():
        there = folder / file
        if there.exists() and there.read_bytes() != content:
            raise UsageError(f"{there} exists and is another file; move it, or copy elsewhere")
    for file, content in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    return folder / f"{name}.yaml"


def _folder() -> Path:
    """In the package where it was built, beside it in the source tree."""
    packaged = _HERE / "studies"
    return packaged if packaged.is_dir() else _HERE.parent / "studies"

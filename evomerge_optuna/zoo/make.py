"""Makes the files of the zoo that come with the package.

`python -m evomerge_optuna.zoo.make GROUP ...` trains the models of these groups (`zoo.members`)
and puts them in the place of those in `zoo/weights`. Then write the SHA-256 that it prints into the
group's row. Every study of the older models refuses to go on, so do it only for better models.
"""

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from evomerge_optuna.zoo.members import GROUPS, Group
from evomerge_optuna.zoo.shipped import digest, pack


def make(group: Group, folder: Path) -> str:
    """Trains a group's models and writes them to a new folder as they are shipped.

    Returns:
        SHA-256 of the files.
    """
    with TemporaryDirectory() as trained:
        group.train(Path(trained))
        pack(Path(trained), group.members, folder)
    return digest(folder)


if __name__ == "__main__":
    for group in GROUPS:
        if group.name in sys.argv[1:]:
            shutil.rmtree(group.shipped, ignore_errors=True)
            print(group.name, make(group, group.shipped))

"""The union of the models' vocabularies, in an order of our own.

mergekit's `tokenizer_source: union` lists the tokens as the tokenizers' hash maps do: in another
order, and so with other rows in the embeddings, every time.
"""

import hashlib
import shutil
from operator import itemgetter
from pathlib import Path
from typing import Any

from mergekit.common import ModelReference
from mergekit.tokenizer.build import build_union_tokenizer, get_stripped_tokenizer

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.models.fingerprint import fingerprint


def union_tokenizer(folders: list[Path]) -> Path:
    """A folder with the union tokenizer of checkpoints: the first one's, then what others add.

    Made once and kept, by the tokenizers' fingerprints.
    """
    prints = [fingerprint(folder) for folder in folders]
    key = hashlib.sha256("".join(p.config + p.tokenizer for p in prints).encode()).hexdigest()

    def write(folder: Path) -> None:
        references = [ModelReference.parse(str(folder)) for folder in folders]
        tokenizers = {r: _by_index(get_stripped_tokenizer(r.model)) for r in references}
        build_union_tokenizer(tokenizers[references[0]], tokenizers).save_pretrained(folder)
        shutil.copy(folders[0] / "config.json", folder)  # transformers asks it for the class

    return derived_folder("union", key, write)


def _by_index(tokenizer: Any) -> Any:
    """The tokenizer, listing its vocabulary by index."""
    listed = dict(sorted(tokenizer.get_vocab().items(), key=itemgetter(1)))
    tokenizer.get_vocab = lambda: listed
    return tokenizer

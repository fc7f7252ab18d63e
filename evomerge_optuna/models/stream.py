"""A model as a stream: named tensors one after the other, and the files that go with them.

What gives a model (a merger) and what takes it (an engine, a checkpoint on disk) meet here, and
neither needs to hold the whole of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, TypeAlias

from evomerge_optuna.models.shards import NamedTensor, write_tensors

if TYPE_CHECKING:
    import torch

# Memory that a receiver has for tensors, by name. A merger writes a tensor there if one of its
# shape, dtype and device is offered, and else makes a new one.
Memory: TypeAlias = "Mapping[str, torch.Tensor]"
NO_MEMORY: Memory = MappingProxyType({})


class Stream(Protocol):
    """A model on its way. Its tensors are made as they are asked for, once.

    The names are those of the checkpoint; where embeddings and head are tied, there is no head. A
    tensor that is yielded belongs to the receiver, which must not change it before `digest`.

    Attributes:
        structure: streams of equal structure have tensors of the same names, shapes and dtypes,
            and write the same files.
    """

    structure: str

    def __iter__(self) -> Iterator[NamedTensor]:
        """The tensors, in an order of the stream's own.

        Raises:
            CandidateError: a tensor cannot be made.
            OSError: a file cannot be read.
        """
        ...

    def digest(self) -> str:
        """SHA-256 of the model, taken as its tensors passed; all must have passed.

        Raises:
            NotFiniteError: a weight is NaN or infinite.
        """
        ...

    def write_files_beside_weights(self, folder: Path) -> None:
        """Writes the rest of the checkpoint: configuration, tokenizer and generation config.

        Raises:
            CandidateError: a file cannot be made.
            OSError: a file cannot be read or written.
        """


def write_stream(stream: Stream, folder: Path) -> str:
    """Writes a stream's checkpoint into an empty folder and returns its digest.

    Raises:
        CandidateError: the model cannot be made, or a weight is NaN or infinite.
        OSError: a file cannot be read or written.
    """
    write_tensors(folder, stream)
    stream.write_files_beside_weights(folder)
    return stream.digest()

"""A vision-language model with another text part, as a stream."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from evomerge_optuna.errors import CandidateError, SpecError
from evomerge_optuna.families.vision_language.checkpoint import (
    digest_of_whole,
    write_files_beside_weights,
)
from evomerge_optuna.families.vision_language.text_part import BODY, HEAD, is_text
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.digest import Digest
from evomerge_optuna.models.ends import ends_of
from evomerge_optuna.models.shards import NamedTensor, read_tensors, tensor_names
from evomerge_optuna.models.stream import Stream


class WholeStream:
    """A host on its way, with a text model as its text part; see `Stream`.

    Tensors have the names that the host's files have, so that what loads the host loads it.

    Args:
        host: the host's name, as in a recipe.
        text: the text model.
    """

    def __init__(self, host: str, text: Stream) -> None:
        self.structure = f"{host} {text.structure}"
        self._host = host
        self._folder = local_folder(host)
        self._text = text
        self._beside_text = Digest()

    def __iter__(self) -> Iterator[NamedTensor]:
        names = tensor_names(self._folder)
        body = next(found[1] for name in names if (found := BODY.fullmatch(name)))
        head = "language_model." if body == "language_model.model." else ""
        for name, tensor in self._text:
            is_head = HEAD.fullmatch(name)
            yield head + name if is_head else body + name.removeprefix("model."), tensor
        for name, tensor in read_tensors(self._folder, lambda n: None if is_text(n) else n):
            self._beside_text.add(name, tensor)
            yield name, tensor

    def digest(self) -> str:
        return digest_of_whole(self._text.digest(), self._beside_text.hexdigest())

    def write_files_beside_weights(self, folder: Path) -> None:
        from transformers import AutoConfig, AutoTokenizer

        with TemporaryDirectory() as place:
            text = Path(place)
            self._text.write_files_beside_weights(text)
            config = AutoConfig.from_pretrained(text, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(text, trust_remote_code=False)
            try:
                write_files_beside_weights(self._folder, config, tokenizer, ends_of(text), folder)
            except SpecError as error:
                raise CandidateError(f"{self._host}: {error}") from error

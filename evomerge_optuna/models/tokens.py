"""Has the embedding a row for every token?"""

from typing import TYPE_CHECKING

from evomerge_optuna.errors import SpecError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def check_ids(tokenizer: "PreTrainedTokenizerBase", rows: int, model: str, key: str) -> None:
    """Refuses a tokenizer with ids beyond the embedding; rows beyond the tokenizer are usual.

    Raises:
        SpecError: naming `key`, the model's place in the spec, and the first such token.
    """
    beyond = {i: token for token, i in tokenizer.get_vocab().items() if i >= rows}
    if not beyond:
        return
    first = min(beyond)
    raise SpecError(
        f"{key}: the tokenizer of {model} has the token {beyond[first]!r} with id {first}, but the "
        f"model's embedding has {rows} rows; resize it "
        f"(model.resize_token_embeddings({max(beyond) + 1})) and save it, or take the "
        f"{'token' if len(beyond) == 1 else f'{len(beyond)} tokens'} out of the tokenizer's files"
    )

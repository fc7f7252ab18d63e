"""The headers of the tensors that are merged, and the size of those that are not."""

from evomerge_optuna.families.vision_language.text_part import (
    is_text,
    is_vision_language,
    text_config,
)
from evomerge_optuna.models.catalog import load_config
from evomerge_optuna.models.headers import STORED, Header, parameter_shapes, stored_headers


def merged_headers(model: str, key: str) -> dict[str, Header]:
    """Every tensor of a model that a merge reads, by name.

    Where the hub does not list the tensors, they are those of the model's configuration.

    Args:
        key: the model's place in the spec, named in errors.

    Raises:
        SpecError: a file cannot be read.
    """
    whole = load_config(model, key)
    found = stored_headers(model, key)
    if found is None:
        config = text_config(whole, key)
        dtype = STORED.get(str(config.dtype).removeprefix("torch."), "F32")
        shapes = parameter_shapes(config, key)
        return {name: Header(shape, dtype) for name, shape in shapes.items()}
    return {n: h for n, h in found.items() if is_text(n)} if is_vision_language(whole) else found


def size_not_merged(model: str, key: str) -> int:
    """Bytes of a vision-language model's tensors outside of its text part.

    Raises:
        SpecError: a file cannot be read.
    """
    found = stored_headers(model, key) or {}
    return sum(h.count * h.itemsize for name, h in found.items() if not is_text(name))

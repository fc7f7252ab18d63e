"""The names of checkpoints of one file: `FILE.safetensors`, or `FILE.safetensors@PIPELINE`.

The file has weights alone. The pipeline that is named gives the configuration that they belong to.
"""

from collections.abc import Mapping

_END, _OF = ".safetensors", ".safetensors@"


def is_single_file(model: str) -> bool:
    """Is it the name of such a checkpoint?"""
    return model.endswith(_END) or _OF in model


def split_single_file(model: str) -> tuple[str, str | None]:
    """The path of a checkpoint's file, and the pipeline that its name gives it, if any."""
    if _OF not in model:
        return model, None
    file, pipeline = model.split(_OF, 1)
    return file + _END, pipeline


def with_pipeline(models: Mapping[str, str]) -> dict[str, str]:
    """The models, of which files that name no pipeline take the first one that is no file.

    Args:
        models: by their keys, the base model first.
    """
    first = next((model for model in models.values() if not is_single_file(model)), None)
    if first is None:
        return dict(models)
    return {k: f"{m}@{first}" if m.endswith(_END) else m for k, m in models.items()}

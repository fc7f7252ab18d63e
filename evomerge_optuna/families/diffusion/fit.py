"""Do the pipelines of a study fit together? Configurations and tensors' headers are compared."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from evomerge_optuna.errors import SpecError
from evomerge_optuna.models.headers import STORED, Header
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.models.pipelines import PIPELINE
from evomerge_optuna.spec import MergeSearchSpec, StudySpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_NAMES = {stored: dtype for dtype, stored in STORED.items()}
# What a merged tensor's shape does not show, though it changes what the network computes.
_UNCOMPARED = ("_name_or_path", "_diffusers_version", "_use_default_values", "sample_size")


def check_search(spec: StudySpec, models: Mapping[str, OpenedModel]) -> MergeSearchSpec:
    """Refuses what is not searched of pipelines.

    Raises:
        SpecError: naming the key.
    """
    for key, model in models.items():
        if "+" in model.name:
            raise SpecError(
                f"{key}: {model.name}: an adapter is merged into a text model only; write it as "
                "merge.after.lora, or fuse it yourself and name the pipeline"
            )
        if model.kind != PIPELINE:
            raise SpecError(
                f"{key}: {model.name} is no pipeline of diffusers; pipelines are merged with "
                "pipelines only"
            )
    if not isinstance(spec, MergeSearchSpec) or spec.stacking is not None:
        raise SpecError(
            f"stage: {spec.stage} stacks layers of language models; pipelines are merged by stage: "
            "ps"
        )
    for name in ("tokenizer_source", "chat_template"):
        if getattr(spec.merge, name) is not None:
            raise SpecError(f"merge.{name}: a pipeline keeps its tokenizers; leave it out")
    return spec


def check_configs(configs: Mapping[str, "PretrainedConfig"]) -> None:
    """Refuses networks that are not of one class and of one configuration.

    Raises:
        SpecError: naming the model's key and what differs.
    """
    first, *others = configs
    for key in others:
        pairs = zip(configs[first].parts, configs[key].parts, strict=True)
        for (part, want), (_, have) in pairs:
            kinds = [_class(content) for content in (have, want)]
            if kinds[0] != kinds[1]:
                raise SpecError(
                    f"{key}: its {part} is a {kinds[0]}, that of {first} a {kinds[1]}; only "
                    "models of one class can be merged"
                )
            for name in sorted({*have, *want}):
                if name not in _UNCOMPARED and not _alike(have, want, name):
                    raise SpecError(
                        f"{key}: {part}: {name} {have.get(name)}, but {first} has "
                        f"{want.get(name)}; only models of one shape can be merged"
                    )


def check_headers(
    spec: MergeSearchSpec, headers: Mapping[str, Mapping[str, Header]]
) -> dict[str, str | None]:
    """Refuses tensors of other shapes and, unless the spec names one, of another dtype.

    Returns:
        The dtype of each model.

    Raises:
        SpecError: naming the model's key and the tensor.
    """
    first, *others = headers
    dtypes = {key: _dtype(key, found) for key, found in headers.items()}
    for key in others:
        for name in sorted({*headers[first], *headers[key]}):
            want, have = headers[first].get(name), headers[key].get(name)
            shapes = [None if one is None else list(one.shape) for one in (have, want)]
            if shapes[0] != shapes[1]:
                raise SpecError(
                    f"{key}: tensor {name} has shape {shapes[0]}, but {first} has {shapes[1]}; "
                    "only models of one shape can be merged"
                )
        if spec.dtype is None and dtypes[key] != dtypes[first]:
            raise SpecError(
                f"{key}: dtype {dtypes[key]}, but {first} has {dtypes[first]}; set merge.dtype to "
                "the one to merge in"
            )
    return dtypes


def check_blocks(spec: MergeSearchSpec, known: Sequence[str]) -> None:
    """Refuses the name of a block that the denoiser does not have.

    Raises:
        SpecError: naming it.
    """
    for block in spec.merge.blocks if isinstance(spec.merge.blocks, tuple) else ():
        if block not in known:
            raise SpecError(
                f"merge.blocks: there is no block '{block}'; there are {', '.join(known)}"
            )


def _dtype(key: str, headers: Mapping[str, Header]) -> str | None:
    """The dtype of a model's tensors; of several the widest."""
    if not headers:
        return None
    widest = max(headers.values(), key=lambda header: header.itemsize)
    return _NAMES.get(widest.dtype, widest.dtype)


def _class(content: Mapping[str, Any]) -> str:
    return str(content.get("_class_name") or content.get("architectures", ["?"])[0])


def _alike(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    """Equal, or left out by an older version of the library where the other has its default."""
    if name.startswith("_") or name in ("transformers_version", "torch_dtype", "dtype"):
        return True
    return name not in one or name not in other or one[name] == other[name]

"""How models are merged: the method, its ranges, groups of layers, dtype, vocabulary."""

from dataclasses import dataclass, field
from typing import Any

from evomerge_optuna.models.headers import STORED
from evomerge_optuna.proposal.facts import ModelFacts

FEW, MANY = 200, 500  # trials: below the first one group is all that a search can fill
_PARTS = 4  # groups of layers


@dataclass
class MergeDraft:
    """The key `merge` of a spec, with comments; see `TaskDraft`."""

    content: dict[str, Any]
    notes: dict[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ()


def merge_of(models: ModelFacts, has_base: bool, trials: int) -> MergeDraft:
    """The merge that is searched in so many trials."""
    draft = MergeDraft({}, {})
    if has_base:
        draft.content |= {"method": "ties", "weight": [0, 2], "density": [0.1, 1]}
        draft.notes |= {
            "method": "or task_arithmetic, dare_ties ...; or several, as [ties, dare_ties]",
            "weight": "of each model: 0 leaves it out, 1 takes all that it changed",
            "density": "the share of its changes that is kept",
        }
    else:
        draft.content |= {"method": "linear", "weight": [0, 1]}
        draft.notes["method"] = "the only one that needs no base model, for any number of models"
    _add_groups(draft, models, trials)
    if has_base:
        draft.content["normalize"] = False
    _add_dtype(draft, models)
    if not models.one_vocabulary:
        draft.content["tokenizer_source"] = "union"
        draft.notes["tokenizer_source"] = "the vocabularies differ; all tokens are kept"
    if models.needs_a_template:
        draft.content["chat_template"] = "auto"
        draft.notes["chat_template"] = "the one that most models have"
    return draft


def merge_of_adapters(models: ModelFacts, trials: int) -> MergeDraft:
    """The merge of LoRA adapters, an adapter again, that is searched in so many trials."""
    draft = MergeDraft({"space": "adapter", "method": "cat", "weight": [0, 1.5]})
    draft.notes |= {
        "space": "the merge is an adapter, too; without this line it is a whole model",
        "method": "the exact sum, of adapters of any ranks; or svd, ties_svd, lorahub ...",
        "weight": "of each adapter: 0 leaves it out, 1 takes all of it",
    }
    _add_groups(draft, models, trials)
    return draft


def _add_groups(draft: MergeDraft, models: ModelFacts, trials: int) -> None:
    if models.kind == "pipeline":
        if trials >= FEW:
            draft.content["layer_groups"] = ["attn"]
            draft.notes["layer_groups"] = "attention has values of its own, all else has others"
        else:
            draft.offers = ("layer_groups: [attn]  # more to search, for more trials",)
    elif (parts := _PARTS if trials >= MANY else 2 if trials >= FEW else 1) > 1:
        draft.content["layer_group_size"] = max(1, -(-models.layers // parts))
        draft.notes["layer_group_size"] = (
            f"of {models.layers} layers; each group has its own values"
        )
    else:
        size = max(1, -(-models.layers // _PARTS))
        draft.offers = (f"layer_group_size: {size}  # more to search, for more trials",)


def _add_dtype(draft: MergeDraft, models: ModelFacts) -> None:
    if len(models.dtypes) == 1 and models.dtypes <= STORED.keys():
        (only,) = models.dtypes
        draft.content["dtype"] = only
        draft.notes["dtype"] = "that of the models"
    elif models.kind != "pipeline":
        draft.content["dtype"] = "bfloat16"
        draft.notes["dtype"] = "the models differ: " + (
            ", ".join(sorted(models.dtypes)) or "unsaid"
        )

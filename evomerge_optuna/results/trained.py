"""An adapter that is trained on the search split: the control of a search over adapters.

It sees the problems that the search sees, with their answers, for a few epochs by plain peft and
torch. Where a search does no better, it has found nothing that a little training does not
(arXiv 2602.12323).
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge_optuna.derived import derived_folder
from evomerge_optuna.devices import torch_device
from evomerge_optuna.errors import SpecError
from evomerge_optuna.merging.tokenizer import reader_of_recipe
from evomerge_optuna.models.opened import OpenedModel
from evomerge_optuna.quiet import quiet
from evomerge_optuna.recipes.adapter import AdapterRecipe, ModuleGroup
from evomerge_optuna.spec import AdapterStudySpec
from evomerge_optuna.study.schema import DATA, FINGERPRINTS
from evomerge_optuna.study.studies import MergeStudy
from evomerge_optuna.zoo.training import IGNORED, Batch, padded

if TYPE_CHECKING:
    import torch

TRAINED = "trained adapter"  # in tables
_EPOCHS = 5
_BATCH = 8
_LEARNING_RATE = 5e-4
_WAY = "1"  # of training; another number where it makes another adapter of the same data

Lesson = tuple[list[int], list[int]]  # token ids and labels


def trained_identity(merge_study: MergeStudy) -> str:
    """What decides the trained adapter: models, search data, seed, and where it goes."""
    spec, attributes = _spec_of(merge_study), merge_study.attributes()
    data = {key: digest for key, digest in attributes[DATA].items() if key.endswith("search")}
    recipe = _uniform(merge_study)
    facts = [_WAY, attributes[FINGERPRINTS], data, spec.sampler.seed, recipe.digest()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def trained_recipe(merge_study: MergeStudy) -> AdapterRecipe:
    """The recipe of the trained adapter alone, which is trained unless it is there.

    Raises:
        SpecError: no task has answers to train on, or a model cannot be had.
    """
    uniform = _uniform(merge_study)
    folder = derived_folder(
        "trained", trained_identity(merge_study)[:16], lambda to: _train(merge_study, uniform, to)
    )
    name = f"{uniform.base_model}+{folder}"
    return uniform.model_copy(
        update={
            "adapters": (name,),
            "method": "cat",
            "groups": (ModuleGroup(values={name: {"weight": 1.0}}),),
            "options": {},
            "max_rank": None,
        }
    )


def _spec_of(merge_study: MergeStudy) -> AdapterStudySpec:
    assert isinstance(merge_study.spec, AdapterStudySpec)
    return merge_study.spec


def _uniform(merge_study: MergeStudy) -> AdapterRecipe:
    recipe = merge_study.space.recipe(merge_study.space.baseline())
    assert isinstance(recipe, AdapterRecipe)
    return recipe


def _train(merge_study: MergeStudy, uniform: AdapterRecipe, folder: Path) -> None:
    """Trains an adapter of the uniform merge's rank and modules, and writes it."""
    import torch
    from peft import LoraConfig, get_peft_model

    from evomerge_optuna.merging.adapters.merger import AdapterMerger
    from evomerge_optuna.models.loading import load_model

    spec, stream = _spec_of(merge_study), AdapterMerger().stream(uniform)
    device = torch_device(spec.evaluation.device)
    model, _ = load_model(OpenedModel(uniform.base_model).folder, device, spec.evaluation.dtype)
    config = LoraConfig(
        r=stream.rank,
        lora_alpha=2 * stream.rank,
        target_modules=list(stream.headers),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(spec.sampler.seed)
        adapted = get_peft_model(model, config)
        lessons = _lessons(merge_study, uniform)
        batches = list(_batches(lessons, spec.sampler.seed))
        _fit(adapted, batches, device)
        adapted.save_pretrained(folder, save_embedding_layers=False)


def _lessons(merge_study: MergeStudy, recipe: AdapterRecipe) -> list[Lesson]:
    """Every problem of the search split with its answer, of which alone the loss is."""
    from evomerge_optuna.engines.encoding import encode_pairs

    reader = reader_of_recipe(recipe)
    end = reader.tokenizer.eos_token_id
    found: list[Lesson] = []
    for runner in merge_study.tasks.values():
        pairs = runner.lessons(reader, runner.problems("search"))
        for ids, given in encode_pairs(reader, pairs, "cut"):
            whole = ids if end is None else [*ids, end]
            found.append((whole, [IGNORED] * given + whole[given:]))
    if not found:
        raise SpecError("baselines: no task has answers to train on; leave trained out")
    return found


def _batches(lessons: Sequence[Lesson], seed: int) -> Iterator[Batch]:
    import torch

    generator = torch.Generator().manual_seed(seed)
    for _ in range(_EPOCHS):
        order = torch.randperm(len(lessons), generator=generator).tolist()
        for start in range(0, len(order), _BATCH):
            chosen = [lessons[place] for place in order[start : start + _BATCH]]
            batch = padded(chosen, 0)
            longest = batch["input_ids"].shape[1]
            lengths = torch.tensor([len(ids) for ids, _ in chosen])
            batch["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long()
            yield batch


def _fit(model: "torch.nn.Module", batches: Sequence[Batch], device: str) -> None:
    import torch

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    model.train()
    for batch in batches:
        inputs = {name: tensor.to(device) for name, tensor in batch.items()}
        model(**inputs, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()

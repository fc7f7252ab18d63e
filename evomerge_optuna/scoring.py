"""A checkpoint of any origin on the tasks of a spec."""

from datetime import date

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.reading import reader_of
from evomerge_optuna.explain import one_line
from evomerge_optuna.families.loading import load_checkpoint
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.models.loading import torch_device
from evomerge_optuna.models.tokens import check_ids
from evomerge_optuna.spec import SPLITS, StudySpec


def score_checkpoint(
    model: str, spec: StudySpec, split: str, day: date | None = None
) -> Evaluation:
    """Scores a model on one split, by the spec's tasks, device and batch size.

    Args:
        day: that chat templates tell; None: today.

    Raises:
        UsageError: no task has this split, there is no such model, or it cannot be asked so.
        EvomergeError: its weights cannot be loaded, or it cannot be scored.
    """
    known = [s for s in SPLITS if any(s in task.data.sources() for task in spec.tasks.values())]
    if split not in known:
        raise UsageError(f"no task has a {split} split; write --split {' or '.join(known)}")
    device = torch_device(spec.evaluation.device)
    evaluator = Evaluator(spec, day)
    evaluator.check(reader_of("MODEL", model), split)
    folder = local_folder(model)
    try:
        loaded, tokenizer, processor = load_checkpoint(folder, device, spec.evaluation.dtype)
    except Exception as error:  # what is wrong with weights, many libraries say in their own way
        raise EvomergeError(f"{model} cannot be loaded: {one_line(error)}") from error
    check_ids(tokenizer, loaded.get_input_embeddings().weight.shape[0], model, "MODEL")
    return evaluator.evaluate(loaded, tokenizer, split, processor=processor)

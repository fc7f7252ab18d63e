"""A checkpoint of any origin on the tasks of a spec."""

from contextlib import closing
from datetime import date

from evomerge_optuna.devices import torch_device
from evomerge_optuna.engines import check_engine, load_engine
from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.asked import check_asked
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.evaluation.reading import reader_of
from evomerge_optuna.evaluation.tasks import runners
from evomerge_optuna.explain import one_line
from evomerge_optuna.families import family_of
from evomerge_optuna.models.opened import OpenedModel
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
    torch_device(spec.evaluation.device)  # before anything is read
    opened = OpenedModel(model, "MODEL")
    if "engine" not in spec.evaluation.model_fields_set:
        spec = spec.with_engine(family_of(opened).engine)
    tasks = runners(spec.tasks)
    check_asked(tasks, family_of(opened), spec.evaluation.row)
    check_engine(spec.evaluation)
    evaluator, named = Evaluator(spec, day, tasks), reader_of(opened)
    evaluator.check(named, split)
    folder = opened.folder
    family_of(opened).check_reader(named.reader, folder, model, "MODEL")
    try:
        engine = load_engine(folder, spec.evaluation)
    except Exception as error:  # what is wrong with weights, many libraries say in their own way
        raise EvomergeError(f"{model} cannot be loaded: {one_line(error)}") from error
    with closing(engine):
        return evaluator.evaluate(engine, split)

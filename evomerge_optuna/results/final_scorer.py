"""`study test`: the models of a study's final table are scored, each once."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import Engine
from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.evaluation.evaluator import Evaluator
from evomerge_optuna.merging.tokenizer import give_chat_template, reader_of_recipe
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.results.chosen_trial import finalists
from evomerge_optuna.results.final_scores import (
    FinalScores,
    ModelToScore,
    model_of_trial,
    models_to_score,
    stored_outcomes,
    stored_scores,
)
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.study.answers import keep_final_answers
from evomerge_optuna.study.renamed import following, identify
from evomerge_optuna.study.result import Scores, as_scored, result_of
from evomerge_optuna.study.schema import FINAL_OUTCOMES, FINAL_SCORES
from evomerge_optuna.study.studies import MergeStudy, recipe_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class FinalScorer:
    """Scores the models of a study's final table; what is stored is not scored again."""

    def __init__(
        self, merge_study: MergeStudy, say: Callable[[str], None] = lambda _: None
    ) -> None:
        identify(merge_study)  # so that it is found again where it is renamed meanwhile
        self._study = merge_study
        self._say = say
        self._builder = candidate_builder(merge_study.spec.evaluation)
        self._evaluator = Evaluator(merge_study.spec, merge_study.day, merge_study.tasks)

    def final_scores(self, trial: FrozenTrial) -> list[FinalScores]:
        """Scores every model on every split of the spec.

        Raises:
            EvomergeError: the trial's recipe no longer gives the tensors it was scored with.
        """
        tasks = self._study.spec.tasks.values()
        splits = [s for s in SPLITS if any(s in task.data.sources() for task in tasks)]
        table = []
        for entry in following(self._study, lambda: models_to_score(self._study, trial)):
            try:
                scores = self._scores(entry, splits, trial)
            except CandidateError as error:
                if not entry.is_extra:
                    raise
                self._say(f"{entry.name} is left out: {error}")
                continue
            table.append(FinalScores(entry.name, {split: scores[split] for split in splits}))
        return table

    def score_finalists(self) -> None:
        """Scores the finalists on dev, where that decides among them."""
        found = following(self._study, lambda: finalists(self._study.as_read()))
        if self._study.spec.has_dev and len(found) > 1:
            for trial in found:
                self._scores(model_of_trial(trial), ["dev"], trial)

    def _scores(
        self, entry: ModelToScore, splits: list[str], trial: FrozenTrial
    ) -> dict[str, Scores]:
        """All scores of a model; those on these splits are computed where none are stored.

        A source that takes no images is asked the questions of images alone.
        """
        stored = following(self._study, partial(stored_scores, self._study, entry))
        missing = [split for split in splits if split not in stored]
        if not missing:
            return stored
        self._say(f"scoring {entry.name} on {', '.join(missing)}")
        with self._engine(entry, trial) as engine:
            found = [
                self._evaluator.evaluate(engine, split, without_images=True) for split in missing
            ]
        for evaluation in found:
            for remark in evaluation.remarks.values():
                self._say(f"{entry.name} on {evaluation.split}: {remark}")
            who = (entry.name, entry.identity)
            following(
                self._study, partial(keep_final_answers, self._study, *who, evaluation, self._say)
            )
        scores = stored | {evaluation.split: evaluation.scores for evaluation in found}
        marks = {evaluation.split: evaluation.marks() for evaluation in found}
        by_split = {split: {m: asdict(s) for m, s in of.items()} for split, of in scores.items()}

        def store() -> None:
            outcomes = stored_outcomes(self._study, entry.identity) | marks
            self._study.study.set_user_attr(FINAL_OUTCOMES + entry.identity, outcomes)
            self._study.study.set_user_attr(FINAL_SCORES + entry.identity, by_split)

        following(self._study, store)
        return scores

    @cached_property
    def _merged_tokenizer(self) -> "PreTrainedTokenizerBase":
        space = self._study.space
        return reader_of_recipe(space.recipe(space.baseline())).tokenizer

    @contextmanager
    def _engine(self, entry: ModelToScore, trial: FrozenTrial) -> Iterator[Engine]:
        """A model that can be asked in the block; the trial's own must be what it was scored as."""
        if entry.recipe is None:
            assert entry.model is not None
            loaded = load_engine(local_folder(entry.model), self._study.spec.evaluation)
            with closing(loaded):
                give_chat_template(loaded.reader.tokenizer, lambda: self._merged_tokenizer)
                yield loaded
            return
        with as_scored(trial):
            candidate = self._builder.build(entry.recipe)
        scored = result_of(trial).sha256
        if entry.recipe == recipe_of(trial) and candidate.digest != scored:
            raise EvomergeError(
                f"{entry.name}: its recipe now gives other tensors "
                f"(sha256 {candidate.digest[:12]}) than when it was scored ({scored[:12]}); are "
                "the package versions those stored with the study?"
            )
        yield candidate.engine

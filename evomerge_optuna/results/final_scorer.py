"""`study test`: the models of a study's final table are scored, each once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from evomerge_optuna.engines import candidate_builder, load_engine
from evomerge_optuna.engines.base import Engine
from evomerge_optuna.errors import CandidateError, EvomergeError
from evomerge_optuna.evaluation.evaluator import Evaluation, Evaluator
from evomerge_optuna.merging.tokenizer import give_chat_template, reader_of_recipe
from evomerge_optuna.models.catalog import local_folder
from evomerge_optuna.results.chosen_trial import chosen_trial, finalists, is_race_open, race
from evomerge_optuna.results.final_scores import (
    FinalScores,
    ModelToScore,
    model_of_trial,
    models_to_score,
    stored_outcomes,
    stored_quarters,
    stored_scores,
)
from evomerge_optuna.results.trained import trained_recipe
from evomerge_optuna.spec import SPLITS
from evomerge_optuna.study.answers import keep_final_answers
from evomerge_optuna.study.quarters import QUARTERS, Part, dev_blocks, parts_of
from evomerge_optuna.study.renamed import following, identify
from evomerge_optuna.study.result import Scores, as_scored, result_of
from evomerge_optuna.study.schema import FINAL_OUTCOMES, FINAL_SCORES, FINALIST
from evomerge_optuna.study.studies import MergeStudy, recipe_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SHARES = {1: "a quarter of ", 2: "half of ", 4: ""}  # of dev, by quarters


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
        self._parts: dict[str, list[Evaluation]] = {}  # of dev, by the recipe's digest

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
        """Scores the finalists on as much of dev as decides among them; see `results.finalists`."""
        raced = False
        while True:
            seen = following(self._study, self._study.as_read)
            if not is_race_open(seen):
                break
            found, raced = finalists(seen), True
            now = race(seen, found)
            for place in now.lacking:
                self._score_quarters(found[place], now.quarters)
        if raced and (chosen := chosen_trial(seen)):
            self._say(f"trial {chosen.number} is the best of {len(found)} on search and dev")

    def _score_quarters(self, trial: FrozenTrial, wanted: int) -> None:
        """Scores a finalist on the first quarters of dev, those that it is not scored on yet."""
        spec, entry = self._study.spec, model_of_trial(trial)
        blocks = dev_blocks(spec, self._study.tasks)
        quarters = following(self._study, partial(stored_quarters, self._study, entry))
        known = len(quarters) * len(blocks) // QUARTERS  # of the blocks
        upto = max(1, wanted * len(blocks) // QUARTERS)
        self._say(f"scoring {entry.name} on {_SHARES[upto * QUARTERS // len(blocks)]}dev")
        with self._engine(entry, trial) as engine:
            scored = self._evaluator.evaluate_blocks(
                engine, "dev", blocks[known:upto], without_images=True
            )
        parts = self._parts.setdefault(entry.identity, [])
        parts += scored
        # What a run that was stopped has scored is not among the parts.
        whole = [self._evaluator.whole(parts, blocks)] if len(parts) == len(blocks) else []
        self._keep(entry, whole, quarters + parts_of(spec, scored, len(blocks)))

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
        quarters = []
        for evaluation in found:
            if evaluation.split == "dev" and entry.recipe is not None:
                blocks = dev_blocks(self._study.spec, self._study.tasks)
                parts = self._evaluator.parts(evaluation, blocks)
                quarters = parts_of(self._study.spec, parts, len(blocks))
        return stored | self._keep(entry, found, quarters)

    def _keep(
        self, entry: ModelToScore, found: Sequence[Evaluation], quarters: Sequence[Part]
    ) -> dict[str, Scores]:
        """Stores a model's scores and answers on whole splits, and its scores on quarters of dev.

        Returns:
            The scores by split.
        """
        for evaluation in found:
            for remark in evaluation.remarks.values():
                self._say(f"{entry.name} on {evaluation.split}: {remark}")
            who = (entry.name, entry.identity)
            following(
                self._study, partial(keep_final_answers, self._study, *who, evaluation, self._say)
            )
        scores = {evaluation.split: evaluation.scores for evaluation in found}
        marks = {evaluation.split: evaluation.marks() for evaluation in found}

        def store() -> None:
            known = stored_scores(self._study, entry) | scores
            by_split = {s: {m: asdict(score) for m, score in of.items()} for s, of in known.items()}
            outcomes = stored_outcomes(self._study, entry.identity) | marks
            if quarters:
                self._study.study.set_user_attr(FINALIST + entry.identity, quarters)
            if found:
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
        if entry.is_trained:
            self._say("training an adapter on the search split")
            yield self._builder.build(trained_recipe(self._study)).engine
            return
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

"""optuna-dashboard on the same storage: objective names, notes and figures of a study."""

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.storages import BaseStorage, get_storage
from optuna.trial import FrozenTrial

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.evaluation.scores import Score
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.dashboard_notes import save_first_note, save_study_note
from evomerge_optuna.report.figures import (
    path_figure,
    scores_figure,
    spread_figure,
    time_figure,
    weights_figure,
)
from evomerge_optuna.report.notes import study_note, trial_note
from evomerge_optuna.report.sheets import attach_sheets
from evomerge_optuna.results.chosen_trial import chosen_trial
from evomerge_optuna.results.final_scores import FinalScores, stored_final_scores
from evomerge_optuna.spaces.joint import JointSpace
from evomerge_optuna.spaces.searched import SearchedSpace
from evomerge_optuna.store.optuna_internals import study_id
from evomerge_optuna.store.store import Store
from evomerge_optuna.study.studies import MergeStudy, recipe_of
from evomerge_optuna.study.trials import Trials

_TOP = 20  # trials in the figures of spread


def describe_study(merge_study: MergeStudy) -> None:
    """Names the objectives; writes the study's note and puts its figures into its page."""
    study, merge_study = merge_study.study, merge_study.as_read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([objective.target for objective in merge_study.spec.objectives])
        if figures := study_figures(merge_study):
            from optuna_dashboard import save_plotly_graph_object  # imports sklearn: a second

            for name, figure in figures.items():
                save_plotly_graph_object(study, figure, graph_object_id=name)
    save_study_note(study, study_note(merge_study, attach_sheets(merge_study)))


def describe_trial(merge_study: MergeStudy, trial: FrozenTrial, before: Trials) -> None:
    """Writes a finished trial's note, once; see `trial_note`."""
    save_first_note(merge_study.study, trial, trial_note(merge_study, trial, before))


class PageUpdates:
    """Keeps a study's page current as it runs, once in a while."""

    def __init__(self, merge_study: MergeStudy, every: float = 60.0) -> None:
        self._study = merge_study
        self._every = every  # seconds
        self._next = 0.0

    def update(self) -> None:
        """Writes note and figures anew, unless that was done a short time ago."""
        if time.monotonic() >= self._next:
            describe_study(self._study)
            self._next = time.monotonic() + self._every


def study_figures(merge_study: MergeStudy) -> dict[str, Any]:
    """The figures of a study by name; those that there is something to show in."""
    best, spec = chosen_trial(merge_study), merge_study.spec
    if best is None:
        return {}
    figures = {"time": time_figure(merge_study.trials())}
    recipe = recipe_of(best)
    if isinstance(recipe, StackRecipe):
        figures["path"] = _path_of(merge_study, recipe)
    top = [_merge_values(merge_study, trial) for trial in merge_study.ranked()[:_TOP]]
    if top[0]:
        figures["weights"] = weights_figure(_merge_values(merge_study, best))
        figures["spread"] = spread_figure(top)
    found = stored_final_scores(merge_study, best)
    scores = {row.name: s for row in found if (s := _on_test(row, spec.objective.target))}
    if scores:
        figures["scores"] = scores_figure(scores, f"{spec.objective.target} on test")
    return figures


def _merge_values(merge_study: MergeStudy, trial: FrozenTrial) -> dict[str, float]:
    """A trial's weights and densities, those too that the spec fixes; what is no number is not."""
    space = merge_study.space
    merge = space.merge if isinstance(space, JointSpace) else space
    values = merge.values(trial.params) if isinstance(merge, SearchedSpace) else {}
    return {name: v for name, v in values.items() if not isinstance(v, bool | str)}


def _on_test(row: FinalScores, target: str) -> Score | None:
    return row.scores.get("test", {}).get(target)


def attach_path(merge_study: MergeStudy, trial: FrozenTrial) -> str:
    """Attaches the figure of the trial's layer path to the study, as a page of its own.

    To the study, for Optuna lets a finished trial have no new artifacts.

    Returns:
        The artifact's file name.

    Raises:
        UsageError: the trial's recipe is no layer stack.
        StorageError: the artifact store cannot be written to.
    """
    recipe = recipe_of(trial)
    if not isinstance(recipe, StackRecipe):
        raise UsageError(f"trial {trial.number} of study '{merge_study.name}' is no layer stack")
    page = _path_of(merge_study, recipe).to_html(include_plotlyjs=True)
    name = f"path-trial-{trial.number}.html"
    merge_study.store.artifacts.attach(merge_study.study, name, page, "text/html")
    return name


def _path_of(merge_study: MergeStudy, recipe: StackRecipe) -> Any:
    aliases = {model: alias for alias, model in merge_study.spec.models.items()}
    return path_figure(recipe, aliases)


def serve(
    store: Store, host: str, port: int, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Runs optuna-dashboard until it is interrupted; it calls `on_ready` with its address.

    Raises:
        EvomergeError: the address cannot be bound.
    """
    from optuna_dashboard import wsgi

    # Optuna caches finished trials for its own studies alone; the page asks for them every 10 s.
    cached = get_storage(store.rdb)
    application = wsgi(cached, artifact_store=store.artifacts)
    try:
        server = make_server(host, port, application, _ThreadingServer, _QuietHandler)
    except OSError as error:
        raise EvomergeError(f"{host}:{port}: {error.strerror}; choose another --port") from error
    with server:
        Thread(target=_read_all, args=(cached,), daemon=True).start()
        on_ready(f"http://{host}:{server.server_port}/")
        server.serve_forever()


def _read_all(storage: BaseStorage) -> None:
    """Reads all trials ahead of the first page, the latest study first."""
    with suppress(Exception):  # the page itself will tell
        for study in reversed(storage.get_all_studies()):
            storage.get_all_trials(study_id(study), deepcopy=False)


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """One line a request would bury what the terminal is for."""

"""optuna-dashboard on the same storage: objective names, and notes that say what is seen."""

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.artifacts import upload_artifact
from optuna.trial import FrozenTrial
from optuna_dashboard import save_note, save_plotly_graph_object, wsgi

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.recipes.stack import StackRecipe
from evomerge_optuna.report.figures import path_figure
from evomerge_optuna.study.storage import Store
from evomerge_optuna.study.studies import ERROR, RECIPE, MergeStudy, recipe_of


def describe_study(merge_study: MergeStudy) -> None:
    """Names the objective and writes the spec as the study's note."""
    spec = merge_study.spec
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        merge_study.study.set_metric_names([spec.objective.target])
    save_note(
        merge_study.study,
        f"# {spec.study}\n\n"
        f"Searches the recipe of a merged model (stage {spec.stage}, {spec.method}) from "
        f"{', '.join(spec.models)}: {spec.objective.direction} `{spec.objective.target}` on the "
        "search split.\n\n"
        f"Export the best: `evomerge-optuna study export {spec.study} OUT`\n\n"
        f"```yaml\n{spec.to_yaml()}```\n",
    )


def describe_trial(merge_study: MergeStudy, trial: FrozenTrial) -> None:
    """Writes a finished trial's recipe, or why it failed, as its note."""
    parts = []
    if ERROR in trial.user_attrs:
        parts.append(f"Failed: {trial.user_attrs[ERROR]}")
    if RECIPE in trial.user_attrs:
        recipe = recipe_of(trial)
        if isinstance(recipe, MergeRecipe):
            parts.append(f"mergekit configuration, masks seeded with {recipe.seed}:")
        else:
            parts.append(f"A path of {len(recipe.steps)} layers:")
        parts.append(f"```yaml\n{recipe.to_yaml()}```")
    # save_note wants a live trial, though it writes to the study's attributes.
    save_note(optuna.Trial(merge_study.study, trial._trial_id), "\n\n".join(parts))


def show_best_path(merge_study: MergeStudy, trial: FrozenTrial) -> None:
    """Puts the figure of the trial's layer path into the study's page, if the trial is the best."""
    best = merge_study.best()
    if best is None or best.number != trial.number:
        return
    recipe = recipe_of(trial)
    if isinstance(recipe, StackRecipe):
        save_plotly_graph_object(
            merge_study.study, _path_of(merge_study, recipe), graph_object_id="path"
        )


def attach_path(merge_study: MergeStudy, trial: FrozenTrial) -> str:
    """Attaches the figure of the trial's layer path to the study, as a page of its own.

    To the study, for Optuna lets a finished trial have no new artifacts.

    Returns:
        The artifact's file name.

    Raises:
        UsageError: the trial's recipe is no layer stack.
    """
    recipe = recipe_of(trial)
    if not isinstance(recipe, StackRecipe):
        raise UsageError(f"trial {trial.number} of study '{merge_study.name}' is no layer stack")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"path-trial-{trial.number}.html"
        _path_of(merge_study, recipe).write_html(file, include_plotlyjs=True)
        upload_artifact(
            artifact_store=merge_study.store.artifacts,
            file_path=str(file),
            study_or_trial=merge_study.study,
            mimetype="text/html",
        )
    return file.name


def _path_of(merge_study: MergeStudy, recipe: StackRecipe) -> Any:
    aliases = {model: alias for alias, model in merge_study.spec.models.items()}
    return path_figure(recipe, aliases)


def serve(
    store: Store, host: str, port: int, on_ready: Callable[[str], None] = lambda _: None
) -> None:
    """Runs optuna-dashboard until it is interrupted; `on_ready` is told its address.

    Raises:
        EvomergeError: the address cannot be bound.
    """
    application = wsgi(store.rdb, artifact_store=store.artifacts)
    try:
        server = make_server(host, port, application, _ThreadingServer, _QuietHandler)
    except OSError as error:
        raise EvomergeError(f"{host}:{port}: {error.strerror}; choose another --port") from error
    with server:
        on_ready(f"http://{host}:{server.server_port}/")
        server.serve_forever()


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """One line a request would bury what the terminal is for."""

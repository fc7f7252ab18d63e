"""optuna-dashboard on the same storage: objective names, and notes that say what is seen."""

import warnings
from collections.abc import Callable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.trial import FrozenTrial
from optuna_dashboard import save_note, wsgi

from evomerge_optuna.errors import EvomergeError
from evomerge_optuna.recipes.merge import MergeRecipe
from evomerge_optuna.study.final import recipe_of
from evomerge_optuna.study.objective import RECIPE
from evomerge_optuna.study.storage import Store
from evomerge_optuna.study.studies import ERROR, MergeStudy


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

"""Every name under which a study or a trial stores something: here and nowhere else.

What a name stands for must stay what it is: studies of earlier versions have it.
"""

# Attributes of a study. The spec is written last: a study without it is a creation cut short.
SPEC = "spec"  # the whole spec
VERSIONS = "versions"  # of the packages that it was created with, by their names
LAYERS = "layers"  # of each model, by its key in the spec
FINGERPRINTS = "fingerprints"  # of each model's files, by its key in the spec
DATA = "data"  # SHA-256 of each split of each task, by its key in the spec
PROMPTS = "prompts"  # SHA-256 of what each model reads, by task and split
DAY = "day"  # on which it was created, as 2026-11-28: what chat templates say today is
IDENTITY = "identity"  # stays when the study is renamed; see `renamed`
START = "start"  # where CMA-ES begins: parameters of the best trial that was given
UNSEARCHED = "unsearched"  # recipes that `study test` scores beside the baseline, by their names
FINAL_SCORES = "final:"  # + digest or hash of a model that `study test` scored: by split, metric
FINAL_OUTCOMES = "outcomes:"  # + the same: by split, task a 1 or 0 for each problem, right or not
FINALIST = "finalist:"  # + digest of a recipe: its scores on the first quarters of dev

# Attributes of a trial.
WORKER = "worker"  # the lease of the worker that runs it
RECIPE = "recipe"  # the whole recipe
RESULT = "result"  # scores, costs, digests and times of its model; see `result`
BASELINE = "baseline"  # what this trial is, if its parameters were not sampled
SAME_AS = "same_as"  # the number of the trial whose recipe, and so whose result, this one has
STOPPED = "stopped_after"  # after how many problems of the search split, by racing
ERROR = "error"  # why its model could not be built or scored
INTERRUPTED = "interrupted"  # why it was cut short, in words
REPEATS = "repeats"  # the number of the trial that this one repeats: it was cut short, or queued
DIED_AT = "died_at"  # the places at which workers died on the trials that this one repeats
PLACE = "place"  # how far its worker has come; of a trial that a worker has died on
HUMAN = "score:"  # + TASK.SCORER: a person's score, as the dashboard's form stores it
GIVEN_UP = "given_up"  # how many workers died on it

# Where a sampler keeps a trial's state, beside Optuna's own attributes.
IDLE_COORDINATE = "cma:idle"  # the second coordinate of a lone parameter, in [0, 1]
CATCMA_GENERATION = "cma:generation"
CATCMA_DRAWN = "cma:drawn"  # numbers as CatCMA drew them, before they were moved into their ranges

# Files of answers: of a trial by split, and of what `study test` scored.
TRIAL_ANSWERS = {"search": "problems.jsonl", "dev": "problems-dev.jsonl"}


def final_answers(split: str, identity: str) -> tuple[str, str]:
    """How the name of a file of final answers begins and ends; between them is the model's name.

    Args:
        identity: the digest of the recipe, or the hash of the source model's weights.
    """
    return f"answers-{split}-", f"-{identity[:12]}.jsonl"

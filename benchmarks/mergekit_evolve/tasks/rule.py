"""The rule of our `generate` task, for lm-eval: our own functions, found by PYTHONPATH."""

from typing import Any

from evomerge_optuna.evaluation.answers import last_number
from evomerge_optuna.evaluation.language import is_language


def process_results(problem: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Right when the last number is right and the text is Japanese."""
    text = results[0].strip()
    number = last_number(text)
    right = number is not None and number == last_number(problem["answer"])
    return {"acc": float(right and is_language(text, "ja"))}

"""Perplexity from the likelihoods of texts."""

import math
from collections.abc import Sequence

import pytest

from evomerge_optuna.errors import CandidateError
from evomerge_optuna.evaluation.tasks.perplexity import Likelihood, perplexity


def likelihoods(*found: tuple[float, int]) -> Sequence[Likelihood]:
    return [Likelihood("t", "text", nll, tokens) for nll, tokens in found]


def test_perplexity_is_exp_of_the_mean_over_texts() -> None:
    score = perplexity(likelihoods((2.0, 2), (9.0, 3), (0.0, 0)), "tasks.t")
    assert score.value == pytest.approx(math.exp((2 / 2 + 9 / 3) / 2))
    assert score.n == 2
    assert perplexity(likelihoods((1e6, 1)), "tasks.t").value == math.inf


def test_texts_with_nothing_to_predict() -> None:
    with pytest.raises(CandidateError, match=r"^tasks\.t: no text has more than one token"):
        perplexity(likelihoods((0.0, 0)), "tasks.t")

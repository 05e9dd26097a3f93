"""Which learning rate and weight decay to try next: a grid, or Optuna's search.

Both are functions of what was tried before, so that a run that goes on tries the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from saln._extras import optional_import
from saln.experiments.trials import Point, Tried
from saln.messages import parameter
from saln.randomness import derive_seed

# What is tried beside no weight decay where none is given: usual for networks on small images.
OTHER_DECAY = 5e-4
# From this many trials on the grid has a second weight decay.
FEWEST_FOR_DECAYS = 6
# The widest that Optuna looks: of the learning rate in factors around what is given.
WIDEST = 30.0
DECAYS = (1e-6, 1e-2)

# Takes what is given, how many trials there are in all, and what was tried; gives the next point.
Search = Callable[[Point, int, Sequence[Tried]], Point]


def _factor(number: int) -> float:
    """1, 3, 1/3, 10, 1/10, 30, 1/30, ...: outward from what is given."""
    power = (number + 1) // 2
    factor = 10.0 ** (power // 2) * (3 if power % 2 else 1)
    return factor if number % 2 else 1 / factor


def grid(start: Point, trials: int, before: Sequence[Tried]) -> Point:
    """The next point of the plain grid around ``start``.

    Fewer than 6 trials are learning rates, in factors of 1, 3, 1/3, 10, 1/10 around that of
    ``start``, with its weight decay. Of more, the first 5 are, or half of them where that is
    more; the others try a second weight decay, 0 or, where ``start`` has that, 5e-4, with the
    rates that were best, the best first. From 10 trials on, an even number is a full grid.
    """
    rates = trials if trials < FEWEST_FOR_DECAYS else max(5, math.ceil(trials / 2))
    number = len(before)
    if number < rates:
        return Point(start.learning_rate * _factor(number), start.weight_decay)
    # Lost ones come last: another weight decay seldom saves them.
    best_first = sorted(before[:rates], key=lambda each: each.score or (-1.0,), reverse=True)
    rate = best_first[number - rates].point.learning_rate
    return Point(rate, 0.0 if start.weight_decay else OTHER_DECAY)


def _optuna() -> Any:
    asked, other = (parameter("tune_search", name) for name in ("optuna", "grid"))
    with optional_import("optuna", asked, instead=f"give {other}"):
        import optuna
    return optuna


def tpe(start: Point, trials: int, before: Sequence[Tried]) -> Point:
    """The next point by Optuna's tree-structured Parzen estimator (Bergstra et al., 2011).

    The first is ``start``, a third of the others are drawn at random, and those after them where
    good ones are likely: learning rates up to 30 times smaller or larger than that of ``start``,
    weight decays of 1e-6 to 1e-2, both by their logarithms.
    """
    if not before:
        return start
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rates = start.learning_rate / WIDEST, start.learning_rate * WIDEST
    spaces = {
        "learning_rate": optuna.distributions.FloatDistribution(*rates, log=True),
        "weight_decay": optuna.distributions.FloatDistribution(*DECAYS, log=True),
    }
    # A sampler of its own for every trial: one that goes on would have to be saved.
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=max(2, trials // 3), seed=derive_seed("tune", len(before)) % 2**32
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for each in before:
        inside = min(max(each.point.weight_decay, DECAYS[0]), DECAYS[1])  # 0 has no logarithm
        study.add_trial(
            optuna.trial.create_trial(
                params=each.point._asdict() | {"weight_decay": inside},
                distributions=spaces,
                # Worse than any: the estimator then keeps away from what diverges.
                value=-1.0 if each.score is None else each.score.accuracy,
            )
        )
    return Point(**study.ask(spaces).params)


SEARCHES: dict[str, Search] = {"grid": grid, "optuna": tpe}


def check_search(name: str) -> None:
    """Raises MissingExtraError where a search needs a package that is not there."""
    if SEARCHES[name] is tpe:
        _optuna()

"""The arms of the tuned studies of whole networks, in lists by name."""

from __future__ import annotations

from evidence_tables.tuned import RULE
from scratch_plans import ORACLE

__all__ = ["ARM_LISTS", "SOFTER"]

CURRICULUM = "balanced-curriculum"

# The smaller shares of soft targets; without a word of shares they are 0.7 and 0.3.
SOFTER = "+targets(beliefs=0.3,features=0.3)"
ARMS = (
    "standard",
    "standard+targets",
    "uniform",
    "uniform+gce",
    "uniform+smoothing",
    "uniform+targets",
    f"uniform{SOFTER}",
    CURRICULUM,
    f"{CURRICULUM}{SOFTER}",
    f"{CURRICULUM}(power=1)",
    f"{CURRICULUM}(power=1)+targets",
    "coherence",
    "coherence(judge=neighbors)",
    "coherence+targets",
    ORACLE,
)
# The frozen rule beside its rivals, where none of its hyperparameters was chosen.
CHOOSING = (
    *("uniform", RULE, f"uniform{SOFTER}", "coherence", CURRICULUM, "uniform+targets"),
    *("uniform+gce", ORACLE),
)
EVERYTHING = ("standard", f"standard{SOFTER}")
SHORT = ("uniform", f"uniform{SOFTER}", RULE, "coherence")
# Tried on seeds of their own, to see what a hyperparameter does; never in a table of results.
SEARCH = tuple(
    f"{CURRICULUM}{values}+targets{shares}"
    for values in (
        *("(power=1)", "(power=1,strength=2)", "(power=1,strength=0.5)", "(power=2)", ""),
        "(power=1,pace=2)",
    )
    for shares in (
        *("", "(beliefs=0.5,features=0.3)", "(beliefs=0.3,features=0.3)"),
        *("(beliefs=0.5,features=0.5)", "(beliefs=1,features=0)"),
    )
)
ARM_LISTS = {
    "all": ARMS,
    "search": SEARCH,
    "confirmation": (*CHOOSING, *EVERYTHING),
    "choosing": CHOOSING,
    "everything": EVERYTHING,
    "everything-soft": (f"standard{SOFTER}", "standard+targets"),
    "short": SHORT,
}

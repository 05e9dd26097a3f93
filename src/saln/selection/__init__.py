"""Selectors: rules from candidates to kept positions.

``SELECTORS`` names each as on the command line. ``standard`` is no selector: it is the
arm of a comparison that keeps everything.
"""

from saln.selection.candidates import Candidates, Selection, candidates_needed, kept_count
from saln.selection.coherence import BatchCoherence, Coherence
from saln.selection.contract import Selector
from saln.selection.jest import JEST
from saln.selection.saln import SALN
from saln.selection.uniform import Uniform

__all__ = [
    "JEST",
    "SALN",
    "SELECTORS",
    "BatchCoherence",
    "Candidates",
    "Coherence",
    "Selection",
    "Selector",
    "Uniform",
    "candidates_needed",
    "kept_count",
]

SELECTORS: dict[str, type[Selector]] = {
    "uniform": Uniform,
    "saln": SALN,
    "jest": JEST,
    "coherence": Coherence,
    "coherence-batch": BatchCoherence,
}

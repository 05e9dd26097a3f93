"""The report's words, explained where they stand and in a list at the end."""

from __future__ import annotations

from markupsafe import Markup, escape

GLOSSARY = {
    "arm": "one way to train in this comparison: a selector with its settings",
    "uniform": "a random choice of the candidates, as many as any selector keeps",
    "standard": "training on every example, every epoch, without selection",
    "points": "differences of percentages: from 80% to 85% are 5 points",
    "interval": "the 95% confidence interval of the mean over seeds (Student's t)",
    "difference to uniform": "test accuracy minus that of uniform, paired by seed",
    "verdict": "better or worse only where the 95% interval excludes zero",
    "seed": "a repetition with other initial weights, order, augmentation and wrong labels",
    "epoch": "one pass over all candidates",
    "equal epochs": "both arms saw the candidates equally often",
    "equal steps": "both arms made as many gradient steps",
    "equal seconds": "both arms took as long, with features and choosing counted",
    "wrong labels kept": "the share of wrong labels among the examples that got a gradient",
    "features": "the output of a frozen network, computed once for every example",
    "reference": "a second network that JEST and RHO-LOSS compare the learner with",
    "load": "seconds that reading and augmenting images took",
    "score": "seconds that forward passes for choosing took",
    "select": "seconds that choosing took",
    "evaluate": "seconds that measuring took; no part of an arm's training time",
    "save": "seconds that writing checkpoints to go on from took",
    "test accuracy": "accuracy on images that no choice and no training saw",
    "suspected labels": "labels for which the other examples believe another class",
    "training time": "seconds with features and choosing, without evaluation; mean over seeds",
}  # fmt: skip


def explained(text: str) -> Markup | str:
    """A word of the list with its meaning as a tooltip; any other text as it is."""
    # "Training time of coherence" is explained as "training time".
    meaning = GLOSSARY.get(text.lower()) or GLOSSARY.get(text.lower().partition(" of ")[0])
    if meaning is None:
        return text
    return Markup('<abbr title="{}">{}</abbr>').format(escape(meaning), text)

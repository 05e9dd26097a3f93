"""The report's section on labels that their neighbors doubt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from saln.errors import DataError
from saln.experiments.json_record import JsonRecord
from saln.experiments.run_folder import RunFolder
from saln.report.number_text import percent_text
from saln.report.values import Table
from saln.selection.neighbor_votes import TRANSITION_SMOOTHING

SHOWN_LABELS = 20
SHOWN_CONFUSIONS = 10
# Shares that are less than this above the matrix's smoothing are no finding.
SMALLEST_SHARE = 0.005
_CURE = "remove it to leave the labels out of the report, or run again"


@dataclass(frozen=True, kw_only=True)
class DoubtedLabel(JsonRecord):
    """A training label that is believed little; ``wrong`` is None where nobody knows."""

    example: int
    image: str
    given: int
    believed: int
    confidence: float
    wrong: bool | None


@dataclass(frozen=True, kw_only=True)
class LabelDoubts(JsonRecord):
    """The content of ``labels.json``; rates are None where there is none."""

    judge: str = "neighbors"
    seed: int
    classes: tuple[str, ...]
    training_labels: int
    estimated_noise_rate: float | None
    tells_nothing: str | None = None
    true_noise_rate: float | None
    doubted: int
    transition: tuple[tuple[float, ...], ...]
    labels: tuple[DoubtedLabel, ...]

    @property
    def known_wrong(self) -> list[bool]:
        """Whether each listed label is wrong, of those of which somebody knows."""
        return [label.wrong for label in self.labels if label.wrong is not None]


class LabelSection(NamedTuple):
    """The rate of wrong labels in words; the likeliest confusions and the labels least believed."""

    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


def read_doubts(folder: Path) -> LabelDoubts | None:
    """What a run's ``labels.json`` says; None where no arm judged labels."""
    path = RunFolder(folder).labels
    return LabelDoubts.read(path, _CURE) if path.exists() else None


def label_section(folder: Path) -> LabelSection | None:
    """The section for a run folder; None where no arm judged labels."""
    doubts = read_doubts(folder)
    if doubts is None:
        return None
    try:
        tables = (_confusions(doubts), _doubted(doubts))
    except (LookupError, ArithmeticError) as error:  # a class that has no name
        path = RunFolder(folder).labels
        raise DataError(f"{path} cannot be read ({type(error).__name__}); {_CURE}") from error
    return LabelSection(_sentences(doubts), tuple(table for table in tables if table))


def _probability(share: float) -> str:
    # 0.0% would say that it is impossible.
    return "< 0.1" if share < 0.001 else percent_text(share)


def _sentences(doubts: LabelDoubts) -> tuple[str, ...]:
    if doubts.estimated_noise_rate is None:
        reason = doubts.tells_nothing or "nothing is known of the labels"
        return (f"{reason[:1].upper()}{reason[1:]} (seed {doubts.seed}).",)
    rate = f"About {percent_text(doubts.estimated_noise_rate)}% of the training labels look wrong"
    if doubts.true_noise_rate is not None:
        rate += f"; {percent_text(doubts.true_noise_rate)}% were replaced on purpose"
    # Another judge asks all the other examples, not the nearest alone.
    who = "The neighbors" if doubts.judge == "neighbors" else "The other examples"
    count = f"{who} believe another class for {doubts.doubted:,} of "
    count += f"{doubts.training_labels:,} labels"
    if doubts.labels:
        count += f"; labels.json lists the {len(doubts.labels):,} that they believe least"
    if doubts.known_wrong:
        count += f", of which {sum(doubts.known_wrong):,} were replaced on purpose"
    return (f"{rate} (seed {doubts.seed}).", f"{count}.")


def _confusions(doubts: LabelDoubts) -> Table | None:
    names = doubts.classes
    smallest = SMALLEST_SHARE + TRANSITION_SMOOTHING / len(names)
    pairs = [
        (share, true, given)
        for true, row in enumerate(doubts.transition)
        for given, share in enumerate(row)
        # The diagonal is what is right.
        if given != true and share >= smallest
    ]
    # Of equal shares the first class comes first, so that the page repeats.
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    return Table(
        "label_confusions",
        "The likeliest wrong labels: the share (%) of a class that carries another class's label",
        ("class", "labeled as", "share"),
        tuple((names[t], names[g], percent_text(s)) for s, t, g in pairs[:SHOWN_CONFUSIONS]),
    ).unless_empty()


def _doubted(doubts: LabelDoubts) -> Table | None:
    labels, names = doubts.labels[:SHOWN_LABELS], doubts.classes
    known = any(label.wrong is not None for label in labels)  # of all of them, or of none
    columns = ("image", "training example", "label", "believed class", "label is right (%)")
    rows = (
        (
            label.image,
            f"{label.example:,}",
            names[label.given],
            names[label.believed],
            _probability(label.confidence),
            *(("yes" if label.wrong else "no",) if known else ()),
        )
        for label in labels
    )
    return Table(
        "doubted_labels",
        f"The {len(labels)} training labels that are believed least",
        (*columns, "replaced on purpose") if known else columns,
        tuple(rows),
    ).unless_empty()

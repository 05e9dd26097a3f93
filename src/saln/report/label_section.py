"""The report's section on labels that their neighbors doubt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from saln.errors import DataError
from saln.report.values import Table
from saln.selection.neighbor_votes import TRANSITION_SMOOTHING

SHOWN_LABELS = 20
SHOWN_CONFUSIONS = 10
# Shares that are less than this above the matrix's smoothing are no finding.
SMALLEST_SHARE = 0.005


class LabelSection(NamedTuple):
    """What the report says about labels.

    Attributes:
        sentences: The rate of wrong labels, and what is listed.
        tables: The likeliest confusions, where there are any, and the labels least believed.
    """

    sentences: tuple[str, ...]
    tables: tuple[Table, ...]


def label_section(folder: Path) -> LabelSection | None:
    """The section for a run folder; None where no arm judged labels.

    Raises:
        DataError: ``labels.json`` is there but cannot be used.
    """
    path = folder / "labels.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return LabelSection(_sentences(found), tuple(_tables(found)))
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}); remove it to leave the "
            "labels out of the report, or run again"
        ) from error


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _probability(share: float) -> str:
    return "< 0.1" if share < 0.001 else _percent(share)


def _sentences(found: dict[str, Any]) -> tuple[str, ...]:
    if found["estimated_noise_rate"] is None:
        reason = found.get("tells_nothing") or "nothing is known of the labels"
        return (f"{reason[:1].upper()}{reason[1:]} (seed {found['seed']}).",)
    rate = f"About {_percent(found['estimated_noise_rate'])}% of the training labels look wrong"
    if found["true_noise_rate"] is not None:
        rate += f"; {_percent(found['true_noise_rate'])}% were replaced on purpose"
    labels = found["labels"]
    count = f"The neighbors believe another class for {found['doubted']:,} of "
    count += f"{found['training_labels']:,} labels"
    if labels:
        count += f"; labels.json lists the {len(labels):,} that they believe least"
    known = [label["wrong"] for label in labels if label["wrong"] is not None]
    if known:
        count += f", of which {sum(known):,} were replaced on purpose"
    return (f"{rate} (seed {found['seed']}).", f"{count}.")


def _tables(found: dict[str, Any]) -> list[Table]:
    names = found["classes"]
    smallest = SMALLEST_SHARE + TRANSITION_SMOOTHING / len(names)
    pairs = [
        (share, true, given)
        for true, row in enumerate(found["transition"])
        for given, share in enumerate(row)
        if given != true and share >= smallest
    ]
    pairs.sort(key=lambda pair: (-pair[0], *pair[1:]))
    tables = []
    if pairs:
        tables.append(
            Table(
                "label_confusions",
                "The likeliest wrong labels: of a class, the share (%) that carries another's",
                ("class", "labeled as", "share"),
                tuple((names[t], names[g], _percent(s)) for s, t, g in pairs[:SHOWN_CONFUSIONS]),
            )
        )
    labels = found["labels"][:SHOWN_LABELS]
    if labels:
        replaced = {True: "yes", False: "no"}
        known = labels[0]["wrong"] is not None
        columns = ("image", "training example", "label", "believed class", "label is right (%)")
        tables.append(
            Table(
                "doubted_labels",
                f"The {len(labels)} training labels that are believed least",
                (*columns, "replaced on purpose") if known else columns,
                tuple(
                    (
                        label["image"],
                        f"{label['example']:,}",
                        names[label["given"]],
                        names[label["believed"]],
                        _probability(label["confidence"]),
                        *((replaced[label["wrong"]],) if known else ()),
                    )
                    for label in labels
                ),
            )
        )
    return tables

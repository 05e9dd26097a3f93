"""What a reader sees first: the verdict in a sentence, three figures, what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from saln.experiments.arm import BASELINES, STANDARD, UNIFORM
from saln.experiments.rows import ArmSummary, Summary
from saln.experiments.statistics import Difference
from saln.report.label_section import LabelDoubts
from saln.report.number_text import UNKNOWN, number_text, percent_text

# A few wrong labels are in every data set; from this share on they are worth a look.
NOISE_WORTH_A_LOOK = 0.03
# What another seed adds beyond this is no advice.
MOST_SEEDS = 100
_MORE_SEEDS = "seeds 0,1,2,3,4"


class Tile(NamedTuple):
    """A figure in large type: what it is, its value, and what to compare it with."""

    title: str
    value: str
    detail: str


class FirstScreen(NamedTuple):
    """The top of a report; also what the terminal prints."""

    verdict: str
    tiles: tuple[Tile, ...]
    recommendation: str
    seeds: str


def leading_arm(summary: Summary) -> str | None:
    """The most accurate arm beside the baselines; None where there is none."""
    others = {arm: each for arm, each in summary.finished.items() if arm not in BASELINES}
    return max(others, key=lambda arm: others[arm].test_accuracy.mean, default=None)


def user_seconds(entry: ArmSummary) -> float:
    """What an arm costs its user: neither evaluation nor the states to go on from."""
    spent = entry.seconds
    return max(0.0, spent.total - spent.evaluate - spent.save)


def first_screen(summary: Summary, doubts: LabelDoubts | None) -> FirstScreen:
    """The first screen of a finished run; ``doubts`` is the content of its ``labels.json``."""
    arm, known = leading_arm(summary), summary.finished.items()
    accuracy = {name: f"{percent_text(each.test_accuracy.mean)}%" for name, each in known}
    time = {name: f"{number_text(user_seconds(each), comma=True)} s" for name, each in known}
    tiles = (
        _arm_tile("Test accuracy", accuracy, arm),
        _arm_tile("Training time", time, arm),
        _suspected(doubts),
    )
    return FirstScreen(
        _verdict(summary, arm), tiles, _recommendation(summary, arm, doubts), _seeds(summary, arm)
    )


def _verdict(summary: Summary, arm: str | None) -> str:
    if arm is None:
        return "No selector finished in this run, so there is nothing to compare."
    entry = summary.finished[arm]
    shown = [(label, gain) for label in BASELINES if (gain := entry.versus(label)) is not None]
    if not shown:
        return f"{arm} finished, but neither uniform nor standard did: there is no comparison."
    if len(summary.seeds) < 2:
        return f"One seed gives no verdict on {arm}: differences between two seeds may be larger."
    parts = [_against(summary, arm, label, gain) for label, gain in shown]
    return f"{arm} is {', and '.join(parts)}."


def _against(summary: Summary, arm: str, baseline: str, gain: Difference) -> str:
    """How an arm did beside a baseline: points with their interval, and seconds."""
    points = number_text(abs(100 * gain.difference))
    ends = sorted(abs(100 * end) for end in gain.ci95 or ())  # of one sign where it is said
    interval = f" [{', '.join(map(number_text, ends))}]"
    said = {
        "better": f"{points} points{interval} more accurate than {baseline}",
        "worse": f"{points} points{interval} less accurate than {baseline}",
    }.get(gain.verdict)
    if said is None:
        low, high = (number_text(100 * end, sign=True) for end in gain.ci95 or (0.0, 0.0))
        said = f"not shown to differ in accuracy from {baseline} ([{low}, {high}] points)"
    return f"{said}, in {_time_beside(summary, arm, baseline, 'its')}"


def _time_beside(summary: Summary, arm: str, baseline: str, whose: str) -> str:
    base = user_seconds(summary.finished[baseline])
    if base <= 0:
        return "an unknown time"
    ratio = user_seconds(summary.finished[arm]) / base
    if 0.95 <= ratio < 1.05:
        return "about the same time"
    return f"{100 * ratio:.0f}% of {whose} time" if ratio < 1 else f"{ratio:.1f} times {whose} time"


def _arm_tile(title: str, texts: Mapping[str, str], arm: str | None) -> Tile:
    """A value of the leading arm, and beside it those of the baselines that were run."""
    beside = ", ".join(f"{label} {texts[label]}" for label in BASELINES if label in texts)
    return Tile(f"{title} of {arm}", texts[arm], beside) if arm else Tile(title, UNKNOWN, beside)


def _suspected(doubts: LabelDoubts | None) -> Tile:
    title = "Suspected labels"
    if doubts is None:
        return Tile(title, UNKNOWN, "no arm judged the labels")
    if doubts.estimated_noise_rate is None:
        return Tile(title, UNKNOWN, doubts.tells_nothing or "nothing is known of the labels")
    rate = percent_text(doubts.estimated_noise_rate)
    detail = f"of {doubts.training_labels:,}; about {rate}% look wrong{_checked(doubts)}"
    return Tile(title, f"{doubts.doubted:,}", detail)


def _checked(doubts: LabelDoubts) -> str:
    """How many of the most doubtful labels are wrong; nothing if that is unknown."""
    known = doubts.known_wrong
    return f"; {sum(known):,} of the {len(known):,} most doubtful are wrong" if known else ""


def labels_line(doubts: LabelDoubts | None) -> str | None:
    """What was found about the labels, for the terminal; None where nothing was."""
    if doubts is None or doubts.estimated_noise_rate is None:
        return None
    text = f"about {percent_text(doubts.estimated_noise_rate)}% of the training labels look wrong"
    if doubts.true_noise_rate is not None:
        text += f" ({percent_text(doubts.true_noise_rate)}% were made wrong on purpose)"
    return text + _checked(doubts)


def next_step(summary: Summary) -> str:
    """The command that a reader would give next, on data of their own or on this data."""
    spec = "folder:PHOTOS" if summary.dataset == "digits" else shlex.quote(summary.dataset)
    return f"saln labels {spec}"


def _recommendation(summary: Summary, arm: str | None, doubts: LabelDoubts | None) -> str:
    text = _training_advice(summary, arm)
    rate = None if doubts is None else doubts.estimated_noise_rate
    if rate is not None and rate >= NOISE_WORTH_A_LOOK:
        whose = "your own data" if summary.dataset == "digits" else "this data"
        text += f" Look at the suspected labels of {whose}: {next_step(summary)}"
    return text


def _training_advice(summary: Summary, arm: str | None) -> str:
    if arm is None:
        return "Name a selector, such as coherence, among the methods, beside standard and uniform."
    if len(summary.seeds) < 2:
        return f"Decide nothing yet: one seed shows nothing. Run more, such as {_MORE_SEEDS}."
    entry = summary.finished[arm]
    uniform, standard = entry.versus(UNIFORM.label), entry.versus(STANDARD.label)
    beats = uniform is not None and uniform.verdict == "better"
    if standard is not None and standard.verdict == "better":
        return f"Train with {arm}: it beats training on everything."
    if beats and standard is not None and standard.verdict == "worse":
        return f"Train with {arm} where time counts; on everything where accuracy alone counts."
    if beats and standard is not None:
        time = _time_beside(summary, arm, STANDARD.label, "standard's")
        return f"Train with {arm}: it beats a uniform choice, in {time}."
    if beats:
        return f"Train with {arm}: it beats a uniform choice of as many examples."
    return "Train on everything, or on a uniform choice if time is short: no selector is better."


def _seeds(summary: Summary, arm: str | None) -> str:
    """Whether more seeds would say more."""
    count = len(summary.seeds)
    if count < 2:
        return f"One seed has no interval: more are needed ({_MORE_SEEDS}, say)."
    gain = None if arm is None else summary.finished[arm].versus(UNIFORM.label)
    if gain is None or gain.ci95 is None:
        return f"{count} seeds."
    if gain.verdict != "no difference shown":
        return f"{count} seeds are enough: the interval against uniform excludes zero."
    half = (gain.ci95[1] - gain.ci95[0]) / 2
    needed = math.inf if gain.difference == 0 else count * (half / abs(gain.difference)) ** 2
    if needed > MOST_SEEDS:
        return f"{count} seeds show no difference to uniform; if there is one, it is small."
    return (
        f"{count} seeds are too few: at this spread about {max(count + 1, math.ceil(needed))} "
        "would show the difference to uniform."
    )

"""Every arm against the controls, in tables and words, and beside the paper's claims."""

from __future__ import annotations

from collections.abc import Iterator

from saln.experiments.arm import BASELINES, keeps_all
from saln.experiments.rows import SPLITS, ArmSummary, BreakEven, Summary
from saln.report.number_text import NOTHING, interval_text, number_text, verdict_text
from saln.report.paper_claims import CLAIMS, UNREAD, Claim
from saln.report.reported_run import ReportedRun
from saln.report.values import Table


def headline(summary: Summary) -> str:
    """The run in a sentence: who was better than the control, who was worse."""
    arms: dict[str, list[str]] = {}
    for arm, entry in summary.finished.items():
        if entry.versus_uniform is not None and not keeps_all(arm):
            arms.setdefault(entry.versus_uniform.verdict, []).append(arm)
    if not arms:
        return "No selector was compared with a uniform choice in this run."
    texts = {
        "better": "Better than a uniform choice after as many epochs",
        "worse": "Worse",
        "no difference shown": "No difference shown",
    }
    parts = [f"{text}: {', '.join(arms[it])}." for it, text in texts.items() if it in arms]
    # What was hoped for and not shown is said first.
    if "better" not in arms:
        parts.insert(0, "No selector was shown to beat a uniform choice.")
    return " ".join(parts)


def equal_costs(run: ReportedRun) -> Table | None:
    """What is gained after as many epochs, steps and seconds."""
    rows = [
        (
            arm,
            baseline,
            verdict_text(entry.versus(baseline)),
            verdict_text(entry.at_equal_steps.get(baseline)),
            verdict_text(entry.at_equal_seconds.get(baseline)),
        )
        for arm, entry in run.summary.finished.items()
        for baseline in BASELINES
        if entry.versus(baseline) is not None
    ]
    return Table(
        "equal_costs",
        "Difference of test accuracy (points, 95% interval) at an equal cost",
        ("arm", "against", "equal epochs", "equal steps", "equal seconds"),
        tuple(rows),
    ).unless_empty()


def time_to_standard(run: ReportedRun) -> Table | None:
    """How long it took to be as accurate as training on everything."""
    rows = []
    for arm, entry in run.summary.finished.items():
        time = entry.seconds_to_standard
        if time is None:
            continue
        saved, seconds = NOTHING, "not reached"
        if time.mean is not None:
            seconds = interval_text(time.mean, time.ci95, comma=True)
        if time.seconds_saved is not None:
            gain = time.seconds_saved
            saved = interval_text(gain.difference, gain.ci95, sign=True, comma=True)
        share = f"{100 * time.share_reached:.0f}"
        rows.append((arm, number_text(100 * time.target), share, seconds, saved))
    return Table(
        "time_to_standard",
        "Seconds to the test accuracy (%) that standard ends at; share of it reached (%)",
        ("arm", "accuracy", "share reached", "seconds", "seconds saved"),
        tuple(rows),
    ).unless_empty()


def _break_evens(summary: Summary) -> Iterator[tuple[str, str, BreakEven]]:
    for arm, entry in summary.finished.items():
        for baseline in BASELINES:
            even = entry.break_even.get(baseline)
            if even is not None:
                yield arm, baseline, even


def break_even(run: ReportedRun) -> Table | None:
    """How many steps an arm may make to cost no more, and how many it needed."""
    rows = []
    for arm, baseline, even in _break_evens(run.summary):
        needed = [
            # None: with that seed the arm was at no step as accurate.
            "never" if share is None else f"{100 * share:.0f}"
            for share in even.needed_share_per_seed
        ]
        allowed = f"{100 * even.steps_share:.0f}"
        rows.append((arm, baseline, allowed, ", ".join(needed), even.verdict))
    return Table(
        "break_even",
        "Break-even: steps that an arm may make to cost no more (% of the other's), and "
        "steps that it needed to be as accurate (%, by seed)",
        ("arm", "against", "may make", "needed", "verdict"),
        tuple(rows),
    ).unless_empty()


def one_off(run: ReportedRun) -> Table | None:
    """Memory, and the work before the first epoch."""
    rows = []
    for arm, entry in run.summary.finished.items():
        once, peaks = entry.one_off_examples, (entry.peak_bytes.rss, entry.peak_bytes.cuda)
        if once is None:  # a run of a version that did not count them
            continue
        memory = (NOTHING if peak is None else f"{peak / 2**20:,.0f}" for peak in peaks)
        counts = (once.features_forward, once.reference_forward, once.reference_backward)
        rows.append((arm, *memory, *(f"{count:,}" for count in counts)))
    return Table(
        "one_off",
        "Peak memory (MiB) and examples of the one-off work",
        ("arm", "process", "GPU", "features", "reference", "reference, with a gradient"),
        tuple(rows),
    ).unless_empty()


def break_even_lines(summary: Summary) -> tuple[str, ...]:
    """How many fewer steps each arm must need to pay for its choosing, in words."""
    lines = []
    for arm, baseline, even in _break_evens(summary):
        if arm in BASELINES:  # they choose nothing that would have to pay
            continue
        share = even.steps_share
        if share <= 0:  # nothing is left after the one-off work
            need = f"cannot pay: its one-off work alone costs more than {baseline}'s whole run"
        elif share < 1:
            need = f"must need {100 * (1 - share):.0f}% fewer steps than {baseline} to pay"
        else:
            need = f"may make {100 * (share - 1):.0f}% more steps than {baseline} and still pay"
        lines.append(f"{arm} {need}. Here: {even.verdict}.")
    return tuple(lines)


def _beside(claim: Claim, entry: ArmSummary | None) -> tuple[str, ...]:
    """The paper's printed values of an arm, each with ours."""

    def ours(name: str, scale: float, digits: int) -> str:
        return NOTHING if entry is None else f"{scale * entry.metric(name).mean:.{digits}f}"

    pairs = [
        (f"{value:g}", ours(f"{split}_accuracy", 100, 1))
        for split, value in zip(SPLITS, claim.accuracy, strict=True)
    ]
    pairs += [
        (f"{value:g}", ours(f"{split}_loss", 1, 3))
        for split, value in zip(SPLITS[:2], claim.loss, strict=True)
    ]
    minutes = NOTHING if claim.minutes is None else f"{claim.minutes:g}"
    pairs.append((minutes, NOTHING if entry is None else f"{entry.seconds.total / 60:.2f}"))
    return tuple(f"{theirs} | {mine}" for theirs, mine in pairs)


def paper_table(run: ReportedRun) -> Table | None:
    """Our results beside the paper's printed ones; None for presets that are not the paper's."""
    # By preset: other settings would not be those that the paper speaks of.
    claims, summary = CLAIMS.get(run.preset or "", ()), run.summary
    if not claims or run.preset is None:
        return None
    note = (
        "The paper's numbers are its claims, from one run of ResNet-18 over 25 epochs on a T4 "
        f"with no interval; ours are means over {len(summary.seeds)} seed(s) of "
        f"{summary.learner} over {summary.epochs} epochs on this machine. "
        f"Not in the paper's text: {UNREAD[run.preset]}."
    )
    printed = "; ".join(f"{claim.arm}: {claim.tables}" for claim in claims)
    return Table(
        "paper",
        f"The paper's claim | ours: accuracy (%), cross-entropy and minutes (tables {printed})",
        (
            "arm", "train accuracy", "validation accuracy", "test accuracy", "train loss",
            "validation loss", "minutes",
        ),
        tuple((claim.arm, *_beside(claim, summary.finished.get(claim.arm))) for claim in claims),
        note,
    )  # fmt: skip

"""Every arm against the controls, in tables and words, and beside the paper's claims."""

from __future__ import annotations

from typing import Any

from saln.experiments.arm import BASELINES, keeps_all
from saln.report.paper_claims import UNREAD, claims_for
from saln.report.values import Table


def _finished(summary: dict[str, Any]) -> dict[str, Any]:
    return {arm: entry for arm, entry in summary["arms"].items() if "error" not in entry}


def headline(summary: dict[str, Any]) -> str:
    """The run in a sentence: who was better than the control, who was worse."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "no difference shown": []}
    for arm, entry in _finished(summary).items():
        if entry["versus_uniform"] is not None and not keeps_all(arm):
            found[entry["versus_uniform"]["verdict"]].append(arm)
    if not any(found.values()):
        return "No selector was compared with a uniform choice in this run."
    parts = [
        f"{text}: {', '.join(found[verdict])}."
        for verdict, text in (
            ("better", "Better than a uniform choice after as many epochs"),
            ("worse", "Worse"),
            ("no difference shown", "No difference shown"),
        )
        if found[verdict]
    ]
    if not found["better"]:
        parts.insert(0, "No selector was shown to beat a uniform choice.")
    return " ".join(parts)


def _points(found: dict[str, Any] | None) -> str:
    """A difference of accuracies with its interval and what that shows."""
    if found is None:
        return "–"
    text = f"{100 * found['difference']:+.1f}"
    if found["ci95"] is not None:
        low, high = (100 * bound for bound in found["ci95"])
        text += f" [{low:+.1f}, {high:+.1f}]"
    return f"{text} {found['verdict']}"


def _seconds(found: dict[str, Any] | None, sign: str = "") -> str:
    """Seconds with half their interval, from a mean or a difference."""
    if found is None:
        return "–"
    value = found.get("mean", found.get("difference"))
    if value is None:
        return "not reached"
    text = f"{value:{sign},.1f}"
    if found["ci95"] is not None:
        text += f" ± {found['ci95'][1] - value:,.1f}"
    return text


def comparison_tables(summary: dict[str, Any]) -> tuple[Table, ...]:
    """Equal epochs, steps and seconds; the time to standard's accuracy; break-even; memory."""
    arms = _finished(summary)
    equal, reached, even, memory = [], [], [], []
    for arm, entry in arms.items():
        for baseline in BASELINES:
            if entry[f"versus_{baseline}"] is not None:
                equal.append(
                    (
                        arm,
                        baseline,
                        _points(entry[f"versus_{baseline}"]),
                        _points(entry["at_equal_steps"][baseline]),
                        _points(entry["at_equal_seconds"][baseline]),
                    )
                )
            found = entry["break_even"][baseline]
            if found is not None:
                needed = [
                    "never" if share is None else f"{100 * share:.0f}"
                    for share in found["needed_share_per_seed"]
                ]
                allowed = f"{100 * found['steps_share']:.0f}"
                even.append((arm, baseline, allowed, ", ".join(needed), found["verdict"]))
        time = entry["seconds_to_standard"]
        if time is not None:
            share = f"{100 * time['share_reached']:.0f}"
            target = f"{100 * time['target']:.1f}"
            reached.append(
                (arm, target, share, _seconds(time), _seconds(time["seconds_saved"], "+"))
            )
        once, peaks = entry["one_off_examples"], entry["peak_bytes"]
        memory.append(
            (
                arm,
                *(
                    "–" if peaks[name] is None else f"{peaks[name] / 2**20:,.0f}"
                    for name in ("rss", "cuda")
                ),
                f"{once['features_forward']:,}",
                f"{once['reference_forward']:,}",
                f"{once['reference_backward']:,}",
            )
        )
    tables = (
        Table(
            "equal_costs",
            "Difference of test accuracy (points, 95% interval) at an equal cost",
            ("arm", "against", "equal epochs", "equal steps", "equal seconds"),
            tuple(equal),
        ),
        Table(
            "time_to_standard",
            "Seconds to the test accuracy (%) that standard ends at; share of it reached (%)",
            ("arm", "accuracy", "share reached", "seconds", "seconds saved"),
            tuple(reached),
        ),
        Table(
            "break_even",
            "Break-even: steps that an arm may make to cost no more (% of the other's), and "
            "steps that it needed to be as accurate (%, by seed)",
            ("arm", "against", "may make", "needed", "verdict"),
            tuple(even),
        ),
        Table(
            "one_off",
            "Peak memory (MiB) and examples of the one-off work",
            ("arm", "process", "GPU", "features", "reference", "reference, with a gradient"),
            tuple(memory),
        ),
    )
    return tuple(table for table in tables if table.rows)


def break_even_lines(summary: dict[str, Any]) -> tuple[str, ...]:
    """How many fewer steps each arm must need to pay for its choosing, in words."""
    lines = []
    for arm, entry in _finished(summary).items():
        for baseline in BASELINES:
            found = entry["break_even"][baseline]
            if found is None or arm in BASELINES:
                continue
            share = found["steps_share"]
            if share <= 0:
                need = f"cannot pay: its one-off work alone costs more than {baseline}'s whole run"
            elif share < 1:
                need = f"must need {100 * (1 - share):.0f}% fewer steps than {baseline} to pay"
            else:
                need = f"may make {100 * (share - 1):.0f}% more steps than {baseline} and still pay"
            lines.append(f"{arm} {need}. Here: {found['verdict']}.")
    return tuple(lines)


def paper_table(summary: dict[str, Any], preset: str | None) -> tuple[Table, str] | None:
    """Our results beside the paper's printed ones, and what to know; None for other presets."""
    claims = claims_for(preset)
    if not claims or preset is None:
        return None
    arms = _finished(summary)
    rows = []
    for claim in claims:
        entry = arms.get(claim.arm)

        def ours(name: str, entry: Any = entry) -> str:
            if entry is None:
                return "–"
            value = entry[name]["mean"]
            return f"{100 * value:.1f}" if name.endswith("accuracy") else f"{value:.3f}"

        names = ("train", "validation", "test")
        pairs = [
            (f"{value:g}", ours(f"{split}_accuracy"))
            for split, value in zip(names, claim.accuracy, strict=True)
        ]
        pairs += [
            (f"{value:g}", ours(f"{split}_loss"))
            for split, value in zip(names[:2], claim.loss, strict=True)
        ]
        minutes = "–" if claim.minutes is None else f"{claim.minutes:g}"
        pairs.append((minutes, "–" if entry is None else f"{entry['seconds']['total'] / 60:.2f}"))
        rows.append((claim.arm, *(f"{theirs} | {mine}" for theirs, mine in pairs)))
    about = (
        "The paper's numbers are its claims, from one run of ResNet-18 over 25 epochs on a T4 "
        f"with no interval; ours are means over {len(summary['seeds'])} seed(s) of "
        f"{summary['learner']} over {summary['epochs']} epochs on this machine. "
        f"Not in the paper's text: {UNREAD[preset]}."
    )
    table = Table(
        "paper",
        "The paper's claim | ours: accuracy (%), cross-entropy and minutes (tables "
        + "; ".join(f"{claim.arm}: {claim.tables}" for claim in claims)
        + ")",
        (
            "arm", "train accuracy", "validation accuracy", "test accuracy", "train loss",
            "validation loss", "minutes",
        ),
        tuple(rows),
    )  # fmt: skip
    return table, about

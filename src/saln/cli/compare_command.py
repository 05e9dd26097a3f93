"""``saln compare``: train the arms side by side."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from typing import Any

from saln.cli.flags import Command
from saln.cli.process import print_error
from saln.experiments.config import Config, load_preset, load_toml
from saln.experiments.run_folder import read_settings


@dataclass(frozen=True, kw_only=True)
class CompareFlags(Config):
    """The settings, and what is short for some of them."""

    clean: bool = False
    """Leave every label as it is: short for --label-noise 0."""


def _complete(flags: dict[str, Any]) -> Config:
    """The settings: of a preset, changed by a file, changed by flags.

    With ``--resume`` the settings of the run in ``--out`` stand in the preset's place, so that
    they need not be given again; those that are given are compared with them later.
    """
    if flags.pop("clean", False):
        flags["label_noise"] = 0.0
    config = replace(_base(flags), **flags)
    config.check()
    return config


def _base(flags: dict[str, Any]) -> Config:
    """The settings that flags go over."""
    file = flags.get("config")
    # The preset of the digits suits no other data; a file says itself what it starts from.
    wants_default = file is None and flags.get("dataset") in (None, "digits")
    preset = flags.get("preset") or ("digits" if wants_default else None)
    base = load_preset(preset) if preset else Config()
    if flags.get("resume") and flags.get("out") is not None:
        base = read_settings(flags["out"])
    return base if file is None else load_toml(file, base)


def _defaults(flags: dict[str, Any]) -> CompareFlags:
    """What ``--help`` shows: the settings of the preset, file or data set that is named."""
    naming = ("preset", "config", "dataset")
    base = _base({name: flags[name] for name in naming if name in flags})
    values = {each.name: getattr(base, each.name) for each in fields(Config)}
    return CompareFlags(**{**values, "dataset": flags.get("dataset", base.dataset)})


def _compare(config: Config) -> int:
    """Trains several ways side by side, says which was better and by how much, writes a report."""
    from saln.cli.display import TimeLeft, open_reporter, print_facts, print_summary
    from saln.experiments.run import compare
    from saln.report.label_section import read_doubts
    from saln.report.page import is_current, write_report
    from saln.training.processes import Processes

    processes = Processes.from_environment()
    # Of a run that goes on it is not known here how much of it is done.
    left = TimeLeft(config.labels, len(config.seeds), config.epochs)
    with open_reporter(
        silent=not processes.first, left=None if config.resume else left
    ) as reporter:
        outcome = compare(config, reporter)
    if not processes.first:
        return 0  # under torchrun the first process writes and says it
    # A finished run may lack its report: it may have been stopped just before it was drawn.
    if not (outcome.nothing_to_do and is_current(outcome.path)):
        write_report(outcome.path)
    if config.json:
        sys.stdout.write((outcome.path / "summary.json").read_text(encoding="utf-8"))
    elif outcome.nothing_to_do:
        sys.stdout.write(f"{outcome.path} holds a finished run: nothing to resume\n")
    elif outcome.summary is not None:  # as it is in the first process
        print_summary(outcome.summary, read_doubts(outcome.path))
        sys.stdout.write("\n")
        files = {"rows": "epochs.jsonl", "summary": "summary.json", "report": "report.html"}
        print_facts({what: outcome.path / name for what, name in files.items()})
    for failure in outcome.failures:
        print_error(failure)
    return 1 if outcome.failures else 0


COMMAND: Command[Config] = Command(
    name="compare",
    settings=CompareFlags,
    run=_compare,
    complete=_complete,
    defaults=_defaults,
    other_names={"unreadable": "saln features --skip-unreadable"},
)

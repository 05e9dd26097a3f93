"""``saln compare``: train the arms side by side."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from saln.cli.flags import Command
from saln.cli.process import print_error
from saln.experiments.config import Config, load_preset, load_toml
from saln.experiments.run_folder import read_settings


def _complete(flags: dict[str, Any]) -> Config:
    """The settings: of a preset, changed by a file, changed by flags.

    With ``--resume`` the settings of the run in ``--out`` stand in the preset's place, so that
    they need not be given again; those that are given are compared with them later.
    """
    file = flags.get("config")
    # The preset of the digits suits no other data; a file says itself what it starts from.
    wants_default = file is None and flags.get("dataset") in (None, "digits")
    preset = flags.get("preset") or ("digits" if wants_default else None)
    base = load_preset(preset) if preset else Config()
    if flags.get("resume") and flags.get("out") is not None:
        base = read_settings(flags["out"])
    if file is not None:
        base = load_toml(file, base)
    config = dataclasses.replace(base, **flags)
    config.check()
    return config


def _compare(config: Config) -> int:
    """Trains the arms side by side, says which was better and by how much, writes a report."""
    from saln.cli.display import open_reporter, print_facts, print_summary
    from saln.experiments.run import compare
    from saln.report.page import is_current, write_report
    from saln.training.processes import Processes

    processes = Processes.from_environment()
    with open_reporter(silent=not processes.first) as reporter:
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
        print_summary(outcome.summary)
        sys.stdout.write("\n")
        files = {"rows": "epochs.jsonl", "summary": "summary.json", "report": "report.html"}
        print_facts({what: outcome.path / name for what, name in files.items()})
    for failure in outcome.failures:
        print_error(failure)
    return 1 if outcome.failures else 0


COMMAND = Command(
    name="compare",
    settings=Config,
    run=_compare,
    complete=_complete,
    defaults=lambda: load_preset("digits"),
    other_names={"unreadable": "saln features --skip-unreadable"},
)

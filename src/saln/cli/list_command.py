"""``saln list``: everything that can be chosen by name."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from saln.cli.flags import Command


@dataclass(frozen=True)
class ListSettings:
    """`saln list` takes none."""


def _list(settings: ListSettings) -> int:
    """Lists data sets, networks, selectors and presets."""
    from saln.cli.display import WIDTH, open_console
    from saln.data.dataset_registry import DATASETS
    from saln.experiments.arm import listed_arms
    from saln.experiments.config import load_preset, preset_names
    from saln.features.network_registry import NETWORKS
    from saln.features.text_encoders import TEXT_ENCODERS
    from saln.training.changes import listed_changes

    console = open_console()

    def section(title: str, rows: dict[str, str]) -> None:
        console.print(f"\n{title}", style="bold")
        width = max(map(len, rows))
        for name, text in rows.items():
            text = text.replace("\n", "\n      ")
            console.print(f"  {name:<{width}}  {text}", soft_wrap=True)  # whole lines for grep

    section("data sets (--dataset)", DATASETS.help())
    section("networks (--learner, --backbone)", NETWORKS.help())
    for family in NETWORKS.families():
        text = f"and {family.summary}: {', '.join(family.listed)}"
        console.print(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="    "))
    section("text encoders (--backbone of saln labels)", TEXT_ENCODERS.help())
    section("arms (--methods)", dict(listed_arms()))
    section("changes of an arm's training (--methods ARM+CHANGE+CHANGE)", dict(listed_changes()))
    presets = {}
    for name in preset_names():
        preset = load_preset(name)
        presets[name] = (
            f"{preset.learner} on {preset.dataset}, features of {preset.backbone}, "
            f"{preset.epochs} epochs, seeds {','.join(map(str, preset.seeds))}"
        )
    section("presets (--preset)", presets)
    return 0


COMMAND = Command(name="list", settings=ListSettings, run=_list)

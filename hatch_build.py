"""Prepares the README for a package index, which shows no picture or page by a relative link."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://)([^)]*)\)")


def portable(text: str, repository: str | None) -> str:
    """Makes relative links absolute below a repository; without one, text instead of links."""

    def replaced(link: re.Match[str]) -> str:
        picture, shown, target = link.groups()
        if repository is not None:
            return f"{picture}[{shown}]({repository}/{'raw' if picture else 'blob'}/main/{target})"
        return "" if picture else f"{shown} (`{target}`)"

    return re.sub(r"\n{3,}", "\n\n", _LINK.sub(replaced, text))


class ReadmeHook(MetadataHookInterface):
    """Makes the description of the project from README.md."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the README; its links lead below ``Repository`` of ``[project.urls]``, if given."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        text = portable(text, metadata["urls"].get("Repository"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}

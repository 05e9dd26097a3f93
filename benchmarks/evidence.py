"""Rebuilds every figure in the README and the docs from the stored rows.

    python benchmarks/evidence.py            writes the files anew: `make evidence-tables`
    python benchmarks/evidence.py --check    writes nothing; fails where a file would change

Figures stand between ``<!-- rows: NAME -->`` and ``<!-- end -->``. What is between is replaced
by what the function of that name in ``evidence_tables.TABLES`` makes of ``results/*.jsonl``.
Prose outside has no figures of its own but for settings (``SETTINGS``); a test looks for them.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from evidence_tables import PICTURES, RESULTS, TABLES

from saln.files import write_text

__all__ = ["documents", "main", "rebuilt", "stray_figures"]

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- rows: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
# Figures that look like results: a number with what it counts.
FIGURE = re.compile(
    r"\d[\d,.]*\s*(?:±\s*[\d.]+\s*)?"
    r"(?:%|per cent\b|(?:percentage )?points?\b|times\b|x\b|×"
    r"|(?:milli)?seconds?\b|s\b|ms\b|minutes?\b|hours?\b|images/s\b|[KMGT]i?B\b)"
)
# What may stand in prose: settings, bounds in the code and the confidence of the intervals.
SETTINGS = frozenset({"95%", "40%", "256 MiB", "1 GiB"})


def documents(root: Path = ROOT) -> list[Path]:
    """The files whose figures are made from rows."""
    return [root / "README.md", root / "results/README.md", *sorted(root.glob("docs/**/*.md"))]


def rebuilt(text: str, results: Path = RESULTS) -> str:
    """A file's text with every block made anew.

    Args:
        text: Markdown with blocks.
        results: The folder of the rows.

    Raises:
        KeyError: A block has a name that no table has.
        ValueError: A marker without its other half.
    """
    if text.count("<!-- rows:") != text.count("<!-- end -->") or text.count("<!-- rows:") != len(
        BLOCK.findall(text)
    ):
        raise ValueError("each '<!-- rows: NAME -->' needs one '<!-- end -->' after it")

    def make(found: re.Match[str]) -> str:
        start, name, end = found.groups()
        made = TABLES[name](results).strip()
        return f"{start}\n{made}\n\n{end}" if made else f"{start}{end}"

    return BLOCK.sub(make, text)


def stray_figures(text: str) -> list[str]:
    """Figures in prose outside the blocks that look like results and are no setting."""
    prose = BLOCK.sub("", text)
    prose = re.sub(r"^```.*?^```", "", prose, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    return [found for found in FIGURE.findall(prose) if found.strip() not in SETTINGS]


def main() -> int:
    """Rebuild, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    args = parser.parse_args()
    changed = 0
    made = {path: rebuilt(path.read_text(encoding="utf-8")) for path in documents()}
    for name, draw in PICTURES.items():
        picture = draw(RESULTS)
        if picture is not None:
            made[ROOT / name] = picture
    for path, after in made.items():
        if path.exists() and path.read_text(encoding="utf-8") == after:
            continue
        changed += 1
        name = str(path.relative_to(ROOT))
        if args.check:
            print(f"{name} differs from its rows; run `make evidence-tables`")
        else:
            write_text(path, after)
            print(f"rebuilt {name}")
    return 1 if args.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What one comparison of every arm on the digits leaves, in a form that can be compared.

Run as a script it makes the golden files anew::

    PYTHONPATH=src:tests:benchmarks python -m helpers.golden
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from same_rows import ARMS, FLAGS, as_before, contents

FOLDER = Path(__file__).parents[1] / "golden"


def run_all_arms(folder: Path) -> dict[str, Any]:
    """Runs the comparison through the command line and gives its contents."""
    from saln.cli import main

    flags = ("--cache-dir", str(folder / "features"), "--out", str(folder / "run"))
    if main(["compare", *FLAGS, "--methods", ",".join(ARMS), *flags]):
        raise RuntimeError("the comparison failed")
    return as_before(contents(folder / "run"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = run_all_arms(Path(place))
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "all-arms.json").write_text(json.dumps(found, indent=1) + "\n")

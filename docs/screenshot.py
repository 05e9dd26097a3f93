"""Takes the README's pictures of a report: ``python docs/screenshot.py runs/digits``.

Needs the extra ``dev`` and the system's chromium.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

WIDTH, HEIGHT = 1100, 900


def main(run: Path) -> None:
    """Writes report-light.png and report-dark.png beside this file."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium on the path; install the system's package 'chromium'")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_page(
                color_scheme=scheme, viewport={"width": WIDTH, "height": HEIGHT}
            )
            page.goto((run / "report.html").resolve().as_uri())
            page.screenshot(path=Path(__file__).with_name(f"report-{scheme}.png"))
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/screenshot.py RUN")
    main(Path(sys.argv[1]))

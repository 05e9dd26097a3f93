"""Takes the docs' pictures of a report or of a review: ``python docs/screenshot.py FOLDER``.

FOLDER is that of a run (``runs/digits``) or of ``saln labels`` (``labels-photos``). Needs the extra
``dev`` and the system's chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from typing import Any

from PIL import Image

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1100, 880
# A screen and a phone: what is seen without scrolling.
SIZES = {"report": (1280, 800), "report-phone": (390, 844)}


def report(browser: Any, run: Path) -> None:
    """Writes the first screen of a report: report[-phone]-{light,dark}.png."""
    for name, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(
                color_scheme=scheme, viewport={"width": width, "height": height}
            )
            page.goto((run / "report.html").resolve().as_uri())
            _save(page, f"{name}-{scheme}")


def labels(browser: Any, review: Path) -> None:
    """Writes labels-page.png and labels-phone.png."""
    address = (review / "labels.html").resolve().as_uri()
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    page.goto(address)
    for key in "bbbb":
        page.keyboard.press(key)
    page.evaluate("scrollTo(0, 0)")
    _save(page, "labels-page")
    phone = {"viewport": {"width": 390, "height": 800}, "color_scheme": "dark"}
    page = browser.new_page(**phone, device_scale_factor=1.5)
    page.goto(address)
    _save(page, "labels-phone")


def _save(page: Any, name: str) -> None:
    page.wait_for_timeout(300)
    image = Image.open(io.BytesIO(page.screenshot()))
    # Photos in full color would take five times the space.
    image.convert("RGB").quantize(200).save(DOCS / f"{name}.png", optimize=True)


def main(folder: Path) -> None:
    """Takes the pictures of what the folder holds, beside this file."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no chromium on the path; install the system's package 'chromium'")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        take = labels if (folder / "labels.html").exists() else report
        take(browser, folder)
        browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/screenshot.py FOLDER")
    main(Path(sys.argv[1]))

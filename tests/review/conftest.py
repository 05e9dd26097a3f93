"""Commands as a person gives them, and pages for a browser."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.page_tables import CLASSES, HOSTILE, drawn_review, suspects
from PIL import Image

from saln.data.image_sources import ArrayImages, FileImages
from saln.review.review_page import write_page


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """300 examples with files of their own, of which one is missing and some are not held."""
    root = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    table, items = drawn_review(300, CLASSES, seed=3, dataset=f"folder:{root}")
    ids = [f"{given}/é #{row}.jpg" for row, given in enumerate(table.given)]
    paths = [root / name for name in ids]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(random.integers(256, size=(24, 36, 3), dtype=np.uint8)).save(path)
    paths[suspects(table)[1]].unlink()
    table, items = drawn_review(
        300, CLASSES, seed=3, dataset=f"folder:{root}", ids=ids, images=FileImages(root, paths)
    )
    path = write_page(root / "out" / "labels.html", table, items, review=root / "out", pictures=8)
    return path, table


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Images in memory, with names that are markup."""
    folder = tmp_path_factory.mktemp("hostile")
    pixels = np.random.default_rng(0).integers(256, size=(60, 8, 8, 3), dtype=np.uint8)
    ids = [f'{row} {HOSTILE[row % 4]}\n=1+1, "x"' for row in range(60)]
    table, items = drawn_review(
        60, HOSTILE, ids=ids, images=ArrayImages(pixels), message=f"Look: {HOSTILE[0]}"
    )
    return write_page(folder / "labels.html", table, items, review=folder), table


@pytest.fixture
def open_page(browser):
    """Opens a page; in the end nothing may have been said, and only files asked for."""
    contexts, said, asked = [], [], []

    def call(path, width=1200, script=None, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        # A picture whose file is gone is said to be missing; nothing else may be.
        page.on("console", lambda m: "ERR_FILE_NOT_FOUND" in m.text or said.append(m.text))
        page.goto(path.as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []

"""The site of docs/: built without a warning, every page in its menu, every link right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from saln.selection import SELECTORS

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """Anchors, and what is linked or loaded."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag in ("img", "script") and given.get("src"):
            self.loaded.append(given["src"])
        elif tag == "link" and "stylesheet" in (given.get("rel") or ""):
            self.loaded.append(given["href"])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return {path: Page(path.read_text()) for path in folder.rglob("*.html")}


def test_every_page_is_there(pages):
    names = {path.stem for path in pages}
    assert names >= {path.stem for path in (ROOT / "docs").glob("*.md")}


def test_internal_links_lead_somewhere(pages):
    checked = 0
    for path, page in pages.items():
        if path.name == "404.html":
            continue  # its links are those of a server's root
        for link in [*page.links, *page.loaded]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path.name}: {link}"
            if parts.fragment and target in pages and not parts.fragment.startswith("__"):
                assert unquote(parts.fragment) in pages[target].anchors, f"{path.name}: {link}"
            checked += 1
    assert checked > 200


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        assert not [link for link in page.loaded if urlsplit(link).netloc], path.name


def test_every_selector_has_its_docstring(pages):
    (page,) = (path.read_text() for path in pages if path.name == "methods.html")
    for name, selector in SELECTORS.items():
        assert f'id="{name}"' in page
        first = max(re.findall(r"\w+", (selector.__doc__ or "").splitlines()[0]), key=len)
        assert first in page.partition(f'id="{name}"')[2].partition("<h2")[0], name


def test_no_marks_of_another_markup_are_left(pages):
    for path in pages:
        assert not re.search(r":(class|meth|func|data|mod):<|::</p>", path.read_text()), path.name

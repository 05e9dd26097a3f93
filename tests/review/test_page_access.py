"""The page of doubted labels for everybody: other senses, no mouse, a phone, paper."""

from __future__ import annotations

from importlib.resources import files

import pytest
from helpers.page_tables import shown_ids


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_against_the_rules_of_access(open_page, photos, scheme):
    axe = files("axe_playwright_python") / "axe.min.js"
    page = open_page(photos[0], color_scheme=scheme, reduced_motion="reduce")
    for key in "bkd":
        page.keyboard.press(key)
    page.evaluate(axe.read_text())

    def violations():
        found = page.evaluate("axe.run().then((result) => result.violations)")
        return [(each["id"], each["nodes"][0]["html"][:200]) for each in found]

    assert violations() == []
    page.keyboard.press("s")
    assert violations() == []
    page.keyboard.press("Escape")
    page.click("#as-list")
    page.locator(".card .picture").first.click()
    assert violations() == []
    page.keyboard.press("Escape")
    for key in "o?":
        page.keyboard.press(key)
        assert violations() == []
        page.keyboard.press("Escape")
    page.evaluate("document.getElementById('most').removeAttribute('id')")
    assert violations() != []  # the checks see what they should


@pytest.mark.parametrize("width", [360, 390, 700, 1600])
def test_no_sideways_scrolling_and_both_schemes(open_page, photos, hostile, width):
    colors = set()
    for scheme, (path, _) in (("light", photos), ("dark", hostile)):
        page = open_page(path, width=width, color_scheme=scheme)
        page.locator("#filters").evaluate("e => { e.open = true; }")
        page.locator("#confusion").evaluate("e => { e.open = true; }")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        rights = page.locator(".card button").evaluate_all(
            "all => all.map((e) => e.scrollWidth - e.clientWidth)"
        )
        assert max(rights) <= 0  # no word is cut off
    assert len(colors) == 2


def test_the_keyboard_alone_reaches_everything(open_page, photos):
    page = open_page(photos[0])
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.className")
        )
    assert {"kind", "most", "given", "text", "pairs", "undo", "load", "save"} - {
        "undo",
        "save",
    } <= (set(reached))
    assert sum("card" in name.split() for name in reached) == 1  # one stop, not one a card
    page.locator(".card").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#closer-title").inner_text() == shown_ids(page)[1]
    page.keyboard.press("k")  # decides and goes on, here too
    page.keyboard.press("Escape")
    page.keyboard.press("Tab")
    page.keyboard.press("?")
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    assert page.locator("#progress-text").inner_text().startswith("1 of ")


def test_it_prints_the_worst_without_controls(open_page, photos):
    page = open_page(photos[0])
    assert page.pdf()[:5] == b"%PDF-"
    page.emulate_media(media="print")
    assert not page.locator("aside").is_visible()
    assert not page.locator(".card .choices").first.is_visible()

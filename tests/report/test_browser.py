"""The report as a person meets it: in a real browser, which loads nothing from elsewhere."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from helpers.comparisons import Quiet
from PIL import Image
from sklearn.datasets import load_digits

from saln.experiments.config import Config
from saln.experiments.run import compare
from saln.report.page import write_report

EVIL = "<script>alert(1)</script>"
SCHEMES = ("light", "dark")
# What an accessibility checker would call serious, in a page like ours.
SERIOUS = """() => {
  const found = [];
  const say = (what, e) => found.push(what + ': ' + e.outerHTML.slice(0, 120));
  // What a picture holds is no name: it may be a style sheet.
  const inside = (e) => (e.tagName === 'BUTTON' ? e.textContent : '');
  const name = (e) => (e.getAttribute('aria-label') || inside(e)).trim();
  if (!document.documentElement.lang) found.push('no language');
  if (!document.title) found.push('no title');
  if (document.querySelectorAll('main').length !== 1) found.push('not one main');
  if (document.querySelectorAll('h1').length !== 1) found.push('not one h1');
  let level = 0;
  for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
    if (+h.tagName[1] > level + 1) say('heading skips a level', h);
    level = +h.tagName[1];
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) found.push('an id twice');
  for (const e of document.querySelectorAll('[role=img], [role=region], button')) {
    if (!name(e)) say('no name', e);
  }
  for (const e of document.querySelectorAll('select')) if (!e.labels.length) say('no label', e);
  for (const e of document.querySelectorAll('table')) {
    if (!e.caption || !e.caption.textContent.trim()) say('no caption', e);
    for (const th of e.querySelectorAll('th')) if (!th.scope) say('no scope', th);
    if (!e.querySelector('th')) say('no headings', e);
  }
  for (const e of document.querySelectorAll('svg')) {
    if (!e.closest('[role=img]')) say('a picture without words', e);
  }
  for (const e of document.querySelectorAll('*')) {
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === 'auto'
        && e.tabIndex < 0) say('scrolls without a keyboard', e);
    if (e.tabIndex > 0) say('takes the keyboard out of order', e);
  }
  for (const a of document.querySelectorAll('a[href^="#"]')) {
    if (!document.getElementById(a.getAttribute('href').slice(1))) say('leads nowhere', a);
  }
  const channel = (v) => v <= 10 ? v / 3294.6 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = (c) => {
    const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c;
    }
    return 'rgb(255, 255, 255)';
  };
  const texts = 'p, li, td, th, a, button, label, span, b, h1, h2, h3, caption, pre';
  for (const e of document.querySelectorAll(texts)) {
    if (!e.textContent.trim() || !e.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    if ((Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5) say('too little contrast', e);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """The report of a small run on three digits, of which one has an evil name."""
    datasets = pytest.importorskip("datasets", reason="the extra 'hf' is not installed")
    folder = tmp_path_factory.mktemp("browser")
    bunch = load_digits(n_class=3)
    pixels = np.round(bunch.images[:200] * (255 / 16)).astype(np.uint8)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["zero", EVIL, "two"])}
    )
    table = {
        "image": [Image.fromarray(one) for one in pixels],
        "label": bunch.target[:200].tolist(),
    }
    (folder / "data").mkdir()
    datasets.disable_progress_bars()
    made = datasets.Dataset.from_dict(table, features=features)
    made.to_parquet(str(folder / "data" / "train.parquet"))

    config = dataclasses.replace(
        Config(), dataset=f"hf:{folder / 'data'}", learner="small-cnn", backbone="pixels",
        image_size=16, epochs=3, batch_size=4, reference_epochs=2, seeds=(0, 1), label_noise=0.3,
        learning_rate=0.02,
        methods=("standard", "uniform", "saln", "jest", "coherence"), out=folder / "run",
        cache_dir=folder / "cache", preset="digits",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["/usr/bin/saln", "compare", "--preset", "digits"])
        compare(config, Quiet())
    path = write_report(folder / "run")
    assert path.stat().st_size < 10**6
    # Alone in a folder: a page that leans on other files would show it.
    return Path(shutil.copy(path, folder / "alone.html"))


@pytest.fixture
def open_page(browser, report):
    """Opens the report; in the end nothing may have been said or asked for."""
    contexts, said, asked = [], [], []

    def call(scheme="light", width=1200, height=800, *, unfold=True):
        context = browser.new_context(
            color_scheme=scheme, viewport={"width": width, "height": height}
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        if unfold:
            page.evaluate("document.querySelectorAll('details').forEach((e) => (e.open = true))")
        return page

    yield call
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith(("data:", "blob:"))} == {report.as_uri()}


def test_the_gallery_changes_with_arm_epoch_and_batch(open_page):
    page = open_page()
    arms = page.locator("#gallery-arm option").all_text_contents()
    assert arms == ["uniform", "saln", "jest", "coherence"]  # standard drops nothing

    def shown():
        return page.locator("#gallery-shown").inner_html()

    def said():
        return page.locator("#gallery-said").inner_text()

    assert said() == "uniform, epoch 1, batch 0: 4 of 20 kept"
    seen = [shown()]
    for control, value in (("arm", "saln"), ("epoch", "3"), ("batch", "1")):
        page.select_option(f"#gallery-{control}", value)
        assert shown() not in seen
        seen.append(shown())
    assert said() == "saln, epoch 3, batch 1: 4 of 20 kept"
    page.focus("#gallery-arm")
    page.keyboard.press("ArrowDown")  # without a mouse
    assert said() == "jest, epoch 3, batch 1: 4 of 20 kept"
    kept, dropped = page.locator("#gallery-shown ul").all()
    assert (kept.locator("li").count(), dropped.locator("li").count()) == (4, 16)
    # The same candidates in every arm.
    examples = "[role=img]"
    names = {
        arm: sorted(
            tile.get_attribute("aria-label").split(",")[0]
            for tile in (
                page.select_option("#gallery-arm", arm),
                *page.locator(f"#gallery-shown {examples}").all(),
            )[1:]
        )
        for arm in arms
    }
    assert len({tuple(value) for value in names.values()}) == 1
    assert page.locator("#gallery-shown .wrong").count() > 0  # 30% of the labels are
    assert "wrong: " in page.locator("#gallery-shown .wrong").first.inner_text()
    picture = page.locator("#gallery-shown .image").first
    assert picture.evaluate("e => getComputedStyle(e).backgroundImage").startswith('url("data:')


def test_a_name_that_is_markup_is_shown_as_text(open_page):
    page = open_page()
    assert page.locator("#gallery-shown li", has_text=EVIL).count() > 0
    assert EVIL in page.locator("#gallery-shown").inner_text()
    assert EVIL in page.locator(".suspects").inner_text()
    assert page.locator("script").count() == 3  # ours: the gallery, the colors, the code


@pytest.mark.parametrize("scheme", SCHEMES)
def test_nothing_serious_for_those_who_use_other_senses(open_page, scheme):
    page = open_page(scheme)
    assert page.evaluate(SERIOUS) == []
    page.evaluate(  # the checks see what they should
        """() => {
          document.querySelector('caption').remove();
          document.querySelector('th').removeAttribute('scope');
          document.querySelector('label').replaceWith(document.querySelector('select'));
          document.querySelector('[role=img]').removeAttribute('aria-label');
          document.querySelector('.lead').style.color = 'gray';
          document.querySelector('figure').id = 'tables';
        }"""
    )
    found = {line.split(":")[0] for line in page.evaluate(SERIOUS)}
    assert found >= {"no caption", "no scope", "no label", "no name", "an id twice"}
    assert ("too little contrast" in found) == (scheme == "light")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [375, 1200])
def test_no_sideways_scrolling_on_a_phone_or_a_screen(open_page, scheme, width):
    page = open_page(scheme, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_both_schemes_reach_the_page_and_its_figures(open_page):
    colors = {}
    for scheme in SCHEMES:
        page = open_page(scheme)
        text = "figure svg [style*='var(--ink)']"
        ink = page.locator(text).first.evaluate(
            "e => [getComputedStyle(e).stroke, getComputedStyle(e).fill]"
        )
        body = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        colors[scheme] = (body, "rgb(28, 35, 48)" in ink, "rgb(232, 235, 241)" in ink)
    assert colors["light"] == ("rgb(255, 255, 255)", True, False)
    assert colors["dark"] == ("rgb(20, 24, 31)", False, True)


def test_figures_and_tables_can_be_saved(open_page, tmp_path):
    page = open_page("dark")
    with page.expect_download() as waiting:
        page.locator("#save-figures").click()
    assert waiting.value.suggested_filename == "figures.zip"
    waiting.value.save_as(tmp_path / "figures.zip")
    with zipfile.ZipFile(tmp_path / "figures.zip") as files:
        assert files.testzip() is None  # every checksum is right
        assert len(files.namelist()) == page.locator("figure").count()
        text = files.read("seconds.svg").decode()
    assert text.startswith("<svg")
    assert "var(" not in text
    assert "#0072b2" in text  # the colors of paper
    with page.expect_download() as waiting:
        page.locator("button[data-name=accuracy][data-csv]").click()
    waiting.value.save_as(tmp_path / "accuracy.csv")
    lines = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert lines[0] == "arm,train,validation,test"
    assert [line.split(",")[0] for line in lines[1:]] == [
        "standard", "uniform", "saln", "jest", "coherence",
    ]  # fmt: skip


def test_the_verdict_comes_first_and_it_prints(open_page):
    page = open_page()
    tops = {
        part: page.locator(part).first.bounding_box()["y"]
        for part in ("#verdict", "figure", "table", "#gallery", "#repeat", "#words")
    }
    assert list(tops) == sorted(tops, key=tops.get)
    assert page.locator("#command").inner_text() == "saln compare --preset digits"
    assert page.pdf()[:5] == b"%PDF-"
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_verdict_figures_and_recommendation_are_seen_without_scrolling(
    open_page, scheme, width, height
):
    page = open_page(scheme, width, height, unfold=False)
    for part in ("#verdict", "#facts", "#recommendation", "#seeds"):
        box = page.locator(part).bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= height, part
        assert box["x"] + box["width"] <= width, part
    assert page.locator("#facts li").count() == 3
    # Of the two seeds' verdict nothing is known here, but what it is about.
    assert "uniform" in page.locator("#verdict").inner_text()
    assert page.locator(".suspects li").count() == 8
    assert not page.locator("table").first.is_visible()  # folded away
    page.locator("nav a", has_text="Tables").click()
    page.wait_for_timeout(100)
    assert page.locator("table").first.is_visible()
    box = page.locator("nav").bounding_box()
    assert 0 <= box["y"] <= 1  # the contents stay in view


@pytest.mark.parametrize("scheme", SCHEMES)
def test_axe_finds_no_violation(open_page, scheme):
    pytest.importorskip("axe_playwright_python", reason="axe is not installed (extra 'dev')")
    page = open_page(scheme, 390, 844)
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text())
    found = page.evaluate("axe.run().then((result) => result.violations)")
    assert [(each["id"], [n["html"][:90] for n in each["nodes"]][:3]) for each in found] == []


def test_a_heading_sorts_its_table(open_page):
    page = open_page()
    heading = page.locator("#table-time th", has_text="total")
    column = heading.evaluate("e => e.cellIndex")

    def values():
        cells = page.locator("#table-time tbody tr").all()
        return [float(row.locator("th, td").nth(column).inner_text()) for row in cells]

    heading.locator("button").click()
    assert values() == sorted(values())
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.locator("button").click()
    assert values() == sorted(values(), reverse=True)
    assert heading.get_attribute("aria-sort") == "descending"


def test_words_are_explained_where_they_stand_and_in_a_list(open_page):
    page = open_page()
    meaning = page.locator("#table-test_accuracy thead abbr", has_text="verdict")
    said = meaning.get_attribute("title")
    assert "excludes zero" in said
    assert said in page.locator("dl").inner_text()

"""The whole round: look, decide in a browser, apply, look again."""

from __future__ import annotations

import csv
import sys

import numpy as np
import pytest
from PIL import Image

from saln.cli import main

COLORS = {"blue": (20, 30, 200), "green": (30, 180, 40), "red": (210, 40, 30)}
LABELS = ("labels", "photos", "--backbone", "pixels", "--feature-size", "8")


@pytest.fixture
def photos(tmp_path):
    """30 pictures of each of three colors; the first two of each lie in the next one's folder."""
    random = np.random.default_rng(0)
    names = list(COLORS)
    for number, name in enumerate(names):
        for count in range(30):
            folder = tmp_path / "photos" / (names[(number + 1) % 3] if count < 2 else name)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.array(COLORS[name]) + random.normal(0, 25, (12, 12, 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(folder / f"{name}-{count}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in the folder that holds photos; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["saln", *arguments])
        status = main(list(arguments))
        printed = capsys.readouterr()
        assert status == 0, printed.err
        return printed.out

    return call


def names_in(photos):
    """Which pictures lie in which folder."""
    return {path.relative_to(photos).as_posix() for path in photos.glob("[a-z]*/*.png")}


def test_command_page_decisions_apply_and_command_again(run, photos, browser, tmp_path):
    before = names_in(photos)
    assert "6 of 90 labels look wrong" in run(*LABELS)

    page = browser.new_page()
    page.goto((tmp_path / "labels-photos" / "labels.html").as_uri())
    assert page.locator("#headline").inner_text().startswith("6 of 90 labels look wrong")
    ids = page.locator(".card .where").evaluate_all("all => all.map((e) => e.title)")
    assert all(not name.startswith(folder) for folder, name in (id.split("/") for id in ids))
    for key in "bbbkd":  # three believed, one kept, one dropped, the last one left for later
        page.keyboard.press(key)
    with page.expect_download() as waiting:
        page.keyboard.press("s")
    command = page.locator("#command").inner_text().split()
    waiting.value.save_as(tmp_path / command[-1])
    page.close()

    run(*command[1:])  # shows what it would do
    assert names_in(photos) == before
    run(*command[1:], "--yes")
    believed = {f"{name.partition('-')[0]}/{name}" for name in (id.split("/")[1] for id in ids[:3])}
    after = (before - {*ids[:3], ids[4]}) | believed
    assert names_in(photos) == after

    # The same command again asks about what is left, and about nothing that was decided.
    assert "1 of 89 labels looks wrong, 4 were decided before" in run(*LABELS)
    with (tmp_path / "labels-photos" / "labels.csv").open(newline="") as stream:
        rows = {row["id"]: row for row in csv.DictReader(stream)}
    assert set(rows) == after
    assert {id for id, row in rows.items() if row["decision"]} == {*believed, ids[3]}
    page = browser.new_page()
    page.goto((tmp_path / "labels-photos" / "labels.html").as_uri())
    assert page.locator(".card .where").evaluate_all("all => all.map((e) => e.title)") == [ids[5]]
    page.select_option("#kind", "decided")
    assert page.locator("#status").inner_text().startswith("4 shown")
    page.close()

    run(*command[1:], "--undo")
    assert names_in(photos) == before

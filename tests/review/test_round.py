"""The whole round: look, decide in a browser, apply, look again."""

from __future__ import annotations

import csv

import pytest
from helpers.color_photos import save_colors

LABELS = ("labels", "photos", "--backbone", "pixels", "--feature-size", "8")


@pytest.fixture
def photos(tmp_path):
    return save_colors(tmp_path / "photos")


@pytest.fixture
def printed(run):
    """Runs a command that ends well; gives what it printed."""

    def call(*arguments):
        status, out, err = run(*arguments)
        assert status == 0, err
        return out

    return call


def names_in(photos):
    """Which pictures lie in which folder."""
    return {path.relative_to(photos).as_posix() for path in photos.glob("[a-z]*/*.png")}


def test_command_page_decisions_apply_and_command_again(printed, photos, browser, tmp_path):
    before = names_in(photos)
    assert "6 of 90 labels look wrong" in printed(*LABELS)

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

    printed(*command[1:])  # shows what it would do
    assert names_in(photos) == before
    printed(*command[1:], "--yes")
    believed = {f"{name.partition('-')[0]}/{name}" for name in (id.split("/")[1] for id in ids[:3])}
    after = (before - {*ids[:3], ids[4]}) | believed
    assert names_in(photos) == after

    # The same command again asks about what is left, and about nothing that was decided.
    assert "1 of 89 labels looks wrong, 4 were decided before" in printed(*LABELS)
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

    printed(*command[1:], "--undo")
    assert names_in(photos) == before

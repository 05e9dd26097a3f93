"""The page of doubted labels as a person meets it: in a real browser, from a file."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.page_tables import CLASSES, HOSTILE, drawn_review, shown_ids, suspects

from saln.review.outliers import OUTLYING
from saln.review.review_page import write_page
from saln.review.review_table import DECISION_COLUMNS

LARGE = 100_000


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    names = [f"class {number:03d}" for number in range(200)]
    table, items = drawn_review(LARGE, names, seed=1)
    return write_page(folder / "labels.html", table, items, review=folder), table


def saved(page):
    """The rows of the file that the page saves, and the file's bytes."""
    with page.expect_download() as waiting:
        page.click("#save")
    assert waiting.value.suggested_filename == "decisions.csv"
    assert page.locator("#command").inner_text() == "saln labels apply decisions.csv"
    page.keyboard.press("Escape")
    content = Path(waiting.value.path()).read_bytes()
    text = content.decode("utf-8", "surrogateescape")
    return list(csv.DictReader(io.StringIO(text, newline=""))), content


def expected(table, decided, review):
    """The rows of ``{row: (decision, label)}``, in the order of the table."""
    return [
        {
            "id": table.ids[row], "split": table.splits[row], "given": table.given[row],
            "decision": decision, "label": label, "key": table.keys[row], "review": str(review),
        }
        for row, (decision, label) in sorted(decided.items())
    ]  # fmt: skip


def status(page):
    """How many are shown, and how many of them are expected to be wrong."""
    found = re.match(
        r"([\d,]+) shown(?:, about ([\d,]+) wrong)?", page.locator("#status").inner_text()
    )
    return tuple(int((text or "0").replace(",", "")) for text in found.groups())


def test_keys_decide_and_move_and_undo(open_page, photos):
    path, table = photos
    worst = suspects(table)
    page = open_page(path)
    assert page.locator("h1").inner_text() == f"Labels of {path.parents[1].name}"
    assert page.locator("#headline").inner_text().startswith(f"{len(worst)} of ")
    assert shown_ids(page)[:12] == [table.ids[row] for row in worst[:12]]
    for key in "bkdx":  # the last is no key
        page.keyboard.press(key)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("o")
    other = next(name for name in CLASSES if name not in (table.given[worst[4]],))
    page.keyboard.type(other)
    page.keyboard.press("Enter")
    decided = {
        worst[0]: ("believe", table.believed[worst[0]]),
        worst[1]: ("keep", table.given[worst[1]]),
        worst[2]: ("drop", ""),
        worst[4]: ("relabel", other),
    }
    assert page.locator("#progress-text").inner_text() == f"4 of {len(worst)} decided"
    assert page.locator(".card.drop .verdict").inner_text() == "dropped"
    rows, content = saved(page)
    assert content.splitlines()[0].decode() == ",".join(DECISION_COLUMNS)
    assert rows == expected(table, decided, path.parent)
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.keyboard.press("j")  # before what was undone
    assert page.locator(".card.current .where").get_attribute("title") == table.ids[worst[1]]
    page.keyboard.press("b")
    decided = {
        worst[0]: decided[worst[0]],
        worst[1]: ("believe", table.believed[worst[1]]),
    }
    assert saved(page)[0] == expected(table, decided, path.parent)


def test_the_mouse_decides_and_once_more_takes_it_back(open_page, photos):
    path, table = photos
    worst = suspects(table)
    page = open_page(path)
    first, second = page.locator(".card").all()[:2]
    first.get_by_role("button", name="Believe").click()
    second.get_by_role("button", name="Drop").click()
    assert second.get_by_role("button", name="Drop").get_attribute("aria-pressed") == "true"
    assert page.locator(".card.current .where").get_attribute("title") == table.ids[worst[1]]
    second.get_by_role("button", name="Drop").click()
    second.locator(".picture").click()
    assert page.locator("#closer-title").inner_text() == table.ids[worst[1]]
    page.locator("#after").click()
    page.locator("#closer").get_by_role("button", name="Keep").click()
    assert page.locator("#closer .verdict").inner_text() == "kept"
    page.keyboard.press("Escape")
    decided = {
        worst[0]: ("believe", table.believed[worst[0]]),
        worst[2]: ("keep", table.given[worst[2]]),
    }
    assert saved(page)[0] == expected(table, decided, path.parent)


def test_a_key_never_decides_what_was_scrolled_away(open_page, photos):
    path, table = photos
    page = open_page(path)
    page.keyboard.press("b")
    page.evaluate("scrollTo(0, 1500)")
    page.wait_for_timeout(100)
    page.keyboard.press("k")
    box = page.locator(".card.current").bounding_box()
    assert 0 < box["y"] < 800 - box["height"]
    found = page.locator(".card.current .where").get_attribute("title")
    page.keyboard.press("k")
    row, first = table.ids.index(found), suspects(table)[0]
    decided = {first: ("believe", table.believed[first]), row: ("keep", table.given[row])}
    assert saved(page)[0] == expected(table, decided, path.parent)


def test_all_that_is_shown_is_decided_at_once(open_page, photos):
    path, table = photos
    page = open_page(path)
    page.select_option("#given", label="bee")
    rows = [row for row in suspects(table) if table.given[row] == "bee"]
    page.click("[data-all=believe]")
    decided = {row: ("believe", table.believed[row]) for row in rows}
    assert saved(page)[0] == expected(table, decided, path.parent)
    page.click("#reset")
    page.check("#undecided")
    assert status(page)[0] == len(suspects(table)) - len(rows)
    page.select_option("#kind", "decided")
    page.uncheck("#undecided")
    assert status(page)[0] == len(rows)
    page.click("#undo")
    assert page.locator("#save").is_disabled()


def test_decisions_survive_a_reload_and_a_file_brings_them_elsewhere(open_page, photos, tmp_path):
    path, table = photos
    worst = suspects(table)
    page = open_page(path)
    page.keyboard.press("b")
    page.keyboard.press("d")
    page.reload()
    decided = {worst[0]: ("believe", table.believed[worst[0]]), worst[1]: ("drop", "")}
    rows, content = saved(page)
    assert rows == expected(table, decided, path.parent)
    strange = content + b"no such name,,ant,keep,ant,,x\r\n"
    (tmp_path / "decisions.csv").write_bytes(b"\xef\xbb\xbf" + strange)
    # Where nothing may be kept, the page says so, and all else works.
    refuse = "Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })"
    other = open_page(path, script=refuse)
    assert other.locator("#storage").is_visible()
    assert other.locator("#save").is_disabled()
    other.set_input_files("#load", tmp_path / "decisions.csv")
    other.wait_for_selector("#save:enabled")
    assert "2 decisions loaded" in other.locator("#status").inner_text()
    assert "1 do not fit" in other.locator("#status").inner_text()
    assert saved(other)[1] == content


@pytest.mark.parametrize(
    ("separator", "coding", "first"),
    [(";", "utf-8-sig", ""), ("\t", "utf-16", ""), (";", "utf-8", "sep=;\r\n")],
)
def test_what_a_spreadsheet_made_of_decisions_is_loaded(
    open_page, photos, tmp_path, separator, coding, first
):
    path, _ = photos
    page = open_page(path)
    page.keyboard.press("b")
    page.keyboard.press("d")
    _, content = saved(page)
    rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))
    rows[0] = [name.capitalize() for name in rows[0]]
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=separator).writerows(rows)
    (tmp_path / "decisions.csv").write_bytes((first + stream.getvalue()).encode(coding))
    other = open_page(path)
    other.set_input_files("#load", tmp_path / "decisions.csv")
    other.wait_for_selector("#save:enabled")
    assert "2 decisions loaded from decisions.csv" in other.locator("#status").inner_text()
    assert "fit" not in other.locator("#status").inner_text()
    assert saved(other)[1] == content


def test_pictures_are_held_or_come_from_their_files(open_page, photos):
    path, table = photos
    worst = suspects(table)
    page = open_page(path)
    page.wait_for_timeout(300)
    first = page.locator(".card .picture").all()
    assert first[0].locator("img").get_attribute("src").startswith("data:image/jpeg")
    # The second one's file is gone. Those that are not held have files with names that are odd.
    assert first[1].locator(".blank").inner_text() == table.ids[worst[1]]
    page.select_option("#kind", "all")
    page.wait_for_timeout(300)
    own = page.locator(".card .picture img[src^='../']").first
    assert own.evaluate("async (e) => { await e.decode(); return e.naturalWidth; }") == 36
    _, near = rows_of_first(open_page(path), table)
    assert near == [table.given[row] for row in table.contradicting[worst[0]]]


def numpy_filter(table, kind, most, **wanted):
    """Which rows a filter keeps, from its definition."""
    probability = table.probability
    group, given, splits = (np.array(v) for v in (table.group, table.given, table.splits))

    def several(values):
        return np.array([g >= 0 and len(set(values[group == g])) > 1 for g in group])

    kinds = {
        "suspected": lambda: ~np.isnan(probability),
        "across": lambda: several(given),
        "leaks": lambda: several(splits),
        "inside": lambda: (
            np.array([g >= 0 and (group == g).sum() > 1 for g in group])
            & ~several(given)
            & ~several(splits)
        ),
        "outliers": lambda: table.outlier >= OUTLYING,
        "problems": lambda: np.array([problem != "" for problem in table.problem]),
        "all": lambda: np.ones(len(table), dtype=bool),
    }
    keep = kinds[kind]()
    if most < 1:
        keep &= probability < most
    for name, value in wanted.items():
        keep &= np.array(getattr(table, name)) == value
    return np.flatnonzero(keep)


def rows_of_first(page, table):
    """The row of the first card, and what is written below its small pictures."""
    first = page.locator(".card").first
    row = table.ids.index(first.locator(".where").get_attribute("title"))
    return row, first.locator(".near span").all_inner_texts()


@pytest.mark.parametrize(
    ("kind", "most", "wanted"),
    [
        ("suspected", 0.5, {}),
        ("suspected", 0.2, {"splits": "test"}),
        ("suspected", 1, {"given": "cat"}),
        ("across", 1, {}),
        ("leaks", 1, {}),
        ("inside", 0.9, {}),
        ("outliers", 1, {"believed": "dog", "given": "dog"}),
        ("problems", 1, {}),
        ("all", 1, {"splits": "train"}),
    ],
)
def test_filters_keep_what_their_definition_says(open_page, photos, kind, most, wanted):
    path, table = photos
    page = open_page(path)
    page.select_option("#kind", kind)
    page.locator("#most").evaluate(
        "(e, value) => { e.value = value; e.dispatchEvent(new Event('input')); }", most
    )
    for name, value in wanted.items():
        page.select_option("#split" if name == "splits" else f"#{name}", label=value)
    rows = numpy_filter(table, kind, most, **wanted)
    assert len(rows) > 0
    chance = table.probability[rows]
    wrong = np.floor(np.nansum(1 - chance) + 0.5) if (~np.isnan(chance)).any() else 0
    assert status(page) == (len(rows), wrong)
    assert set(shown_ids(page)) <= {table.ids[row] for row in rows}
    if kind == "leaks":  # beside each of its copies, what split that is in
        row, copies = rows_of_first(page, table)
        assert (
            copies
            == [
                table.splits[other]
                for other in np.flatnonzero(table.group == table.group[row])
                if other != row
            ][:3]
        )
    page.fill("#text", "/É #1")  # whatever the case
    assert status(page)[0] == sum("/é #1" in table.ids[row] for row in rows)


def test_the_matrix_counts_and_filters(open_page, photos):
    path, table = photos
    page = open_page(path)
    pairs = [(table.given[row], table.believed[row]) for row in suspects(table)]
    shown = {
        button.get_attribute("title"): int(button.inner_text())
        for button in page.locator(".matrix button").all()
    }
    assert shown == {f"{a} → {b}": pairs.count((a, b)) for a, b in pairs if a != b}
    one, two = max(set(pairs), key=pairs.count)
    page.locator(f".matrix button[title='{one} → {two}']").click()
    assert status(page)[0] == pairs.count((one, two))
    assert page.locator("#given").input_value() == str(CLASSES.index(one))
    assert page.locator(".matrix button[aria-pressed=true]").inner_text() == str(
        pairs.count((one, two))
    )
    page.click("#as-list")
    assert page.locator(".list tbody tr").count() == len(shown)
    page.locator(".list button[aria-pressed=true]").click()  # once more: all again
    assert status(page)[0] == len(pairs)


def test_names_that_are_markup_are_shown_and_saved_as_they_are(open_page, hostile):
    path, table = hostile
    page = open_page(path)
    assert HOSTILE[0] in page.locator("#message").inner_text()
    assert page.locator("script").count() == 1
    assert page.locator("#given option").all_text_contents()[1:] == list(HOSTILE)
    page.select_option("#kind", "all")
    page.click("[data-all=keep]")
    decided = {row: ("keep", given) for row, given in enumerate(table.given)}
    rows, content = saved(page)
    assert rows == expected(table, decided, path.parent)
    page.click("#undo")
    page.set_input_files("#load", {"name": "d.csv", "mimeType": "text/csv", "buffer": content})
    page.wait_for_selector("#save:enabled")
    assert saved(page)[1] == content


def test_a_name_that_is_no_utf8_keeps_its_bytes(open_page, tmp_path):
    ids = ["a\udce9.jpg", "b\udcff\udcfe é.jpg"]
    table, items = drawn_review(2, CLASSES, ids=ids)
    page = open_page(write_page(tmp_path / "labels.html", table, items, review=tmp_path))
    page.select_option("#kind", "all")
    page.click("[data-all=drop]")
    assert [row["id"] for row in saved(page)[0]] == ids


def test_a_hundred_thousand_rows_scroll_to_the_last(open_page, large):
    path, table = large
    page = open_page(path)
    assert status(page)[0] == len(suspects(table))
    page.select_option("#kind", "all")
    assert status(page)[0] == LARGE
    order = np.argsort(table.probability, kind="stable")
    sizes = []
    for share in (0.3, 0.77, 1):
        page.evaluate(
            f"window.scrollTo(0, {share} * (document.documentElement.scrollHeight - innerHeight))"
        )
        page.wait_for_timeout(100)
        sizes.append(page.locator(".card").count())
    assert max(sizes) < 80
    assert shown_ids(page)[-1] == table.ids[order[-1]]
    last = page.locator(".card").last
    assert last.get_attribute("aria-posinset") == last.get_attribute("aria-setsize") == str(LARGE)
    last.get_by_role("button", name="Drop").click()
    page.keyboard.press("k")
    assert page.locator("#progress-text").inner_text().endswith("and 1 other")
    page.fill("#text", "012345")
    assert shown_ids(page) == ["photos/012345.jpg"]


def test_texts_and_numbers_have_no_classes(open_page, tmp_path):
    texts = [f"text {row} <i>{'word ' * row}</i>" for row in range(50)]
    numbers = tuple(str(row / 4) for row in range(8))
    table, items = drawn_review(50, numbers, task="regression", texts=texts)
    page = open_page(write_page(tmp_path / "labels.html", table, items, review=tmp_path))
    row = suspects(table)[0]
    assert page.locator(".card .words").first.inner_text() == texts[row].strip()
    assert not page.locator("#given").is_visible()
    assert not page.locator("#confusion").is_visible()
    page.keyboard.press("o")
    page.keyboard.type("0.125")
    page.keyboard.press("Enter")
    assert saved(page)[0] == expected(table, {row: ("relabel", "0.125")}, tmp_path)


def test_what_is_remembered_is_not_asked_again(open_page, tmp_path):
    drawn, _ = drawn_review(200, CLASSES)
    kept, waiting, third = suspects(drawn)[:3]
    decision, label = [""] * 200, [""] * 200
    decision[kept], label[kept] = "keep", drawn.given[kept]
    decision[waiting], label[waiting] = "believe", drawn.believed[waiting]
    table, items = drawn_review(200, CLASSES, decision=decision, label=label)
    page = open_page(write_page(tmp_path / "labels.html", table, items, review=tmp_path))
    assert page.locator("#headline").inner_text().endswith("1 decision is not applied yet.")
    assert shown_ids(page)[0] == table.ids[third]
    # What changes nothing is done; what was not applied is saved again, until it is.
    assert saved(page)[0] == expected(table, {waiting: ("believe", label[waiting])}, tmp_path)
    page.select_option("#kind", "decided")
    assert shown_ids(page) == [table.ids[row] for row in (kept, waiting)]
    assert page.locator(".card .verdict").all_inner_texts() == ["kept", f"→ {label[waiting]}"]

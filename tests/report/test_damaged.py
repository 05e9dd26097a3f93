"""Reports of runs whose folder was damaged, and reports that were stopped while drawn."""

from __future__ import annotations

import json

import pytest
from helpers.experiments_rows import ROWS, about, typed, typed_costs

from saln.errors import DataError, InputError
from saln.experiments.config import Config
from saln.experiments.progress_file import Record
from saln.experiments.rows import RunFacts
from saln.experiments.run_folder import write_settings
from saln.files import write_signed
from saln.report import page as page_module
from saln.report.drawing import Drawn
from saln.report.page import is_current, write_report


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "draw", lambda figure, arms: Drawn("<svg></svg>", b"%PDF"))
    write_settings(tmp_path, Config())
    write_signed(tmp_path / "environment.json", {"command": ["saln", "compare"], "torch": "9"})
    record = Record(tmp_path, {}, rows=typed(), costs=typed_costs())
    (tmp_path / "labels.json").write_text("{}")
    record.note("labels.json")
    (tmp_path / "labels.json").unlink()
    record.finish(RunFacts.from_json(about()))
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return tmp_path


def test_rows_and_summary_are_made_anew(folder):
    whole = write_report(folder).read_text()
    before = {name: (folder / name).read_bytes() for name in ("epochs.jsonl", "summary.json")}
    for name, content in before.items():
        for other in (None, b"", content.replace(b"0.5", b"0.6"), content[:50], b"[]"):
            assert other != content
            (folder / name).unlink()
            if other is not None:
                (folder / name).write_bytes(other)
            assert write_report(folder).read_text() == whole
            assert (folder / name).read_bytes() == content
    assert not (folder / ".lock").exists()


def test_what_the_run_ran_on_is_no_reason_to_stop(folder):
    for content in ("", "[]", '{"command": 5}', '{"torch": "8", "checksum": "0"}', None):
        source = folder / "environment.json"
        source.unlink(missing_ok=True)
        if content is not None:
            source.write_text(content)
        text = write_report(folder).read_text()
        assert "environment.json, which says it, is damaged" in text


def test_a_missing_file_is_said_on_the_page(folder):
    assert "missing, or images that are damaged: labels.json." in write_report(folder).read_text()
    (folder / "labels.json").write_text('{"other": 1}')
    with pytest.raises(DataError, match=r"labels\.json is not what was written; put the file back"):
        write_report(folder)


def test_a_damaged_record_is_named(folder):
    source = folder / "progress.json"
    text = source.read_text()
    source.write_text(text.replace("saln", "salm", 1))
    with pytest.raises(DataError, match=r"progress\.json is not what was written; .* or delete it"):
        write_report(folder)
    source.unlink()  # the cure
    write_report(folder)
    # Now nothing is checked: what is no summary is still named.
    for content in ("{}", '{"arms": []}', '{"arms": {"saln": 5}}', "[]", "", "{"):
        (folder / "summary.json").write_text(content)
        with pytest.raises(
            DataError, match=r"summary\.json(: | holds no ).*[,;] (or )?delete it"
        ) as caught:
            write_report(folder)
        assert len(str(caught.value).splitlines()) == 1
    (folder / "summary.json").unlink()
    with pytest.raises(InputError, match=r"not finished, for it has no summary\.json; finish it"):
        write_report(folder)


def test_a_report_is_current_when_all_of_it_was_drawn(folder, monkeypatch):
    """Killed at any moment while it is drawn, it is not."""
    assert not is_current(folder)
    write_report(folder)
    assert is_current(folder)
    for name in ("report.html", "tables/accuracy.md", "figures/seconds.pdf", ".report.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-3])
        assert not is_current(folder)
        (folder / name).unlink()
        assert not is_current(folder)
        (folder / name).write_bytes(content)
        assert is_current(folder)
    before = (folder / "report.html").read_bytes()
    record = Record(folder, {}, rows=typed(), costs=typed_costs())
    record.finish(RunFacts.from_json(about(dataset="more")))
    assert not is_current(folder)
    writes = [0]

    def dying(path, content):
        writes[0] += 1
        if writes[0] > 20:
            raise KeyboardInterrupt
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(page_module, "write_bytes", dying)
        with pytest.raises(KeyboardInterrupt):
            write_report(folder)
    assert (folder / "report.html").read_bytes() == before
    assert not is_current(folder)
    assert "more" in write_report(folder).read_text()
    assert is_current(folder)


def test_a_report_that_fails_leaves_the_one_before(folder):
    write_report(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "labels.json").write_text("{")
    with pytest.raises(DataError, match=r"labels\.json"):
        write_report(folder)
    (folder / "labels.json").unlink()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before

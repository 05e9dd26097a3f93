"""120 random damages of run folders: the same rows as undamaged, or one clear line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers.damages import KINDS, damage, files_of
from helpers.stopped_runs import again, rows_of, small_run, stopped, summary_of

from saln.cli import main
from saln.experiments.run import compare

# What figures look like is the business of tests/report/.
pytestmark = pytest.mark.usefixtures("quick_figures", "same_judgments")

# One of each kind; the others are made and read in the same way.
DRAWN = ("report.html", "figures/seconds.svg", "tables/accuracy.csv")
# A report is drawn without them, and says so.
LEFT_OUT = ("checkpoints/", "choices/", "labels.json")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, same_judgments):
    """A run that was stopped in its third arm, and the same run finished, with its report."""
    place = tmp_path_factory.mktemp("runs")
    config = small_run(
        place, limit=60, epochs=2, seeds=(0,), batch_size=4, label_noise=0.2,
        methods=("uniform", "jest", "coherence"), out=place / "stopped",
    )  # fmt: skip
    stopped(config, 5)
    shutil.copytree(place / "stopped", place / "finished")
    compare(again(config, out=place / "finished"), Silent())
    assert main(["report", str(place / "finished")]) == 0
    return place / "stopped", place / "finished"


class Silent:
    def note(self, text):
        pass

    def begin(self, what, total):
        pass

    def advance(self, examples):
        pass

    def epoch(self, row, epochs):
        pass


def content(path, names=None):
    return {name: (path / name).read_bytes() for name in names or files_of(path)}


def names_of(path):
    """The files to damage: all that a run keeps, and a few of what is drawn of it."""
    kept = [name for name in files_of(path) if not name.startswith(("figures/", "tables/"))]
    return sorted({*kept, *(name for name in DRAWN if (path / name).exists())})


def tables_of(path):
    """Everything that a report says in numbers."""
    return content(path, [name for name in files_of(path) if name.endswith((".csv", ".md"))])


@pytest.mark.parametrize(
    ("which", "command", "seed"),
    [
        ("stopped", ("compare", "--resume", "--out"), 1),
        ("finished", ("compare", "--resume", "--out"), 2),
        ("finished", ("report",), 3),
    ],
    ids=["resume", "resume-finished", "report"],
)
def test_the_same_rows_or_one_line_that_names_file_and_cure(
    folders, which, command, seed, tmp_path, capsys
):
    stopped_folder, finished = folders
    source = stopped_folder if which == "stopped" else finished
    rows, summary, tables = rows_of(finished), summary_of(finished), tables_of(finished)
    names = names_of(source)
    random = np.random.Generator(np.random.PCG64(seed))
    said, kinds = {0: 0, 1: 0, 2: 0}, set()
    for number in range(60 if which == "stopped" else 30):
        path = tmp_path / str(number)
        shutil.copytree(source, path)
        done = damage(path, random, names=names)
        kinds.add(done.kind)
        after = content(path)
        status = main([*command, str(path)])
        error = capsys.readouterr().err
        said[status] += 1
        left = content(path)
        assert not [name for name in left if name.split("/")[-1].startswith((".lock", ".epochs"))]
        if status == 0:
            assert rows_of(path) == rows, (done, error)
            assert summary_of(path) == summary, (done, error)
            if done.kind == "deleted" and done.name.startswith(LEFT_OUT):
                page = (path / "report.html").read_text()
                assert command[0] == "compare" or done.name in page, (done, error)
            elif which == "finished":
                assert tables_of(path) == tables, (done, error)
            continue
        lines = [line for line in error.splitlines() if line.startswith("saln: error: ")]
        assert len(lines) == 1, (done, error)
        assert error.endswith(lines[0] + "\n"), (done, error)
        assert done.name.split("/")[-1] in lines[0], (done, error)
        assert "--debug" not in lines[0], (done, error)
        assert any(cure in lines[0] for cure in ("put the file back", "delete it")), (done, error)
        # Stopped before anything was done; or only the report could not be drawn.
        assert left == after or rows_of(path) == rows, (done, error)
        shutil.rmtree(path)
    assert said[0] > 5, said
    assert said[1] + said[2] > 2, said
    assert kinds == set(KINDS)

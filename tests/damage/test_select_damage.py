"""Random damages of what ``saln select`` reads and writes, and kills at random moments.

The same rows as undamaged, or one line that names what is damaged and what to do.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.damages import KINDS, damage, damage_file, files_of

import saln
from saln import curation
from saln.cli import main
from saln.curation import offline_selection
from saln.curation.checked_files import CheckedFiles
from saln.curation.partition import PartitionJob
from saln.curation.workspace import Workspace

pytestmark = pytest.mark.usefixtures("same_judgments")

ROWS, WIDTH, SIZE = 230, 6, 40
CURES = (
    "write it again", "write the file again", "give ", "remove", "choose among",
    "run", "rename", "repair that row",
)  # fmt: skip


def random_of(seed):
    return np.random.Generator(np.random.PCG64(seed))


def examples():
    random = random_of(5)
    labels = np.arange(ROWS) % 4
    given = labels.copy()
    given[:20] = (given[:20] + 1) % 4
    return (random.random((ROWS, WIDTH)) + 2 * np.eye(WIDTH)[labels]).astype(np.float32), given


def write_rows(path, **options):
    features, labels = examples()
    table = pa.table(
        {
            "name": [f"image-{row}.jpg" for row in range(ROWS)],
            "features": list(features),
            "breed": [("cat", "dog", "owl", "yak")[label] for label in labels],
            "height": np.arange(ROWS) * 10,
        }
    )
    options = {"row_group_size": 57, "write_page_checksum": True, **options}
    pq.write_table(table, path, **options)


def command(source, out, selector="coherence"):
    flags = [] if selector == "uniform" else ["--labels-column", "breed", "--id-column", "name"]
    return [
        "select", str(source), "--selector", selector, "--candidates", str(SIZE),
        "--filter-ratio", "0.8", "--seed", "3", *flags, "--out", str(out),
    ]  # fmt: skip


def in_small_partitions(patch):
    """Lets the command line choose from partitions of two batches."""
    small = functools.partial(offline_selection.select, partition_rows=2 * SIZE)
    patch.setattr(curation, "select", small)


@pytest.fixture(autouse=True)
def small_partitions(monkeypatch):
    in_small_partitions(monkeypatch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, same_judgments):
    """The input, undamaged, and what is made of it: name -> bytes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        in_small_partitions(patch)
        write_rows(folder / "rows.parquet")
        assert main(command(folder / "rows.parquet", folder / "kept.parquet")) == 0
    assert files_of(folder) == ["kept.labels.json", "kept.parquet", "rows.parquet"]
    return {name: (folder / name).read_bytes() for name in files_of(folder)}


def put(folder, files):
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def content(folder):
    """Everything below a folder but locks, which say nothing when nobody holds them."""
    return {name: (folder / name).read_bytes() for name in files_of(folder) if ".lock" not in name}


def attempt(arguments, capsys):
    """The exit code, and the one line of an error."""
    capsys.readouterr()
    code = main(arguments)
    said = [line for line in capsys.readouterr().err.splitlines() if "select: " not in line]
    assert code in (0, 1, 2), said
    if code == 0:
        assert not [line for line in said if "error" in line], said
        return code, ""
    assert len(said) == 1, said
    assert "--debug" not in said[0]  # what nobody has thought of
    assert any(cure in said[0] for cure in CURES), said
    return code, said[0]


def stopped_after(folder, arguments, monkeypatch, parts):
    """Runs until so many parts are there, and stops as by a kill."""
    original = PartitionJob.choose

    def stops(self, number):
        if number == parts:
            raise KeyboardInterrupt
        return original(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(PartitionJob, "choose", stops)
        assert main(arguments) == 130
    return content(folder)


def stopped_at(folder, arguments, monkeypatch, owner, method):
    """Runs until a step of the unfinished work, and stops as by a kill."""

    def stops(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, stops)
        assert main(arguments) == 130
    return content(folder)


def test_damaged_inputs_are_refused_or_do_no_harm(whole, tmp_path, capsys):
    random, outcomes = random_of(1), Counter()
    source, out = tmp_path / "rows.parquet", tmp_path / "kept.parquet"
    for number in range(150):
        put(tmp_path, {"rows.parquet": whole["rows.parquet"]})
        kind = KINDS[number % len(KINDS)] if number < 50 else "flipped"
        done = kind, damage_file(source, kind, random)
        code, said = attempt(command(source, out), capsys)
        outcomes[kind, code] += 1
        if code == 0:
            assert out.read_bytes() == whole["kept.parquet"], done
            assert (tmp_path / "kept.labels.json").read_bytes() == whole["kept.labels.json"], done
        else:
            assert "rows.parquet" in said, (done, said)
            assert not out.exists()
            assert not (tmp_path / "kept.labels.json").exists()
        assert kind == "flipped" or code, done
    assert outcomes["flipped", 1] > 80, outcomes


def test_damaged_inputs_of_a_run_that_was_begun_are_refused(whole, tmp_path, monkeypatch, capsys):
    """Without checksums in the files, too: a run knows its input."""
    random, folder = random_of(2), tmp_path / "rows"
    folder.mkdir()
    write_rows(folder / "a.parquet", write_page_checksum=False)
    write_rows(folder / "b.parquet", write_page_checksum=False, compression="none")
    out = tmp_path / "kept.parquet"
    begun = stopped_after(tmp_path, command(folder, out, "uniform"), monkeypatch, 2)
    assert len([name for name in begun if "part-" in name]) == 2
    for _ in range(60):
        put(tmp_path, begun)
        done = damage(folder, random)
        code, said = attempt(command(folder, out, "uniform"), capsys)
        assert code, done
        assert "parquet" in said, done
        assert not out.exists()
        assert content(tmp_path / "kept.parquet.parts") == {
            name.partition("/")[2]: data for name, data in begun.items() if ".parts/" in name
        }


def test_damaged_unfinished_work_is_made_anew(whole, tmp_path, monkeypatch, capsys):
    """Everything there can be made anew, and is."""
    source, out = tmp_path / "rows.parquet", tmp_path / "kept.parquet"
    random, seen = random_of(3), set()
    states = []
    for step in (None, (Workspace, "publish"), (CheckedFiles, "write")):
        put(tmp_path, {"rows.parquet": whole["rows.parquet"]})
        if step is None:
            states.append(stopped_after(tmp_path, command(source, out), monkeypatch, 2))
        else:
            states.append(stopped_at(tmp_path, command(source, out), monkeypatch, *step))
    for number in range(90):
        put(tmp_path, states[number % len(states)])
        done = damage(tmp_path / "kept.parquet.parts", random)
        seen.add((done.name.split("-")[0], done.kind))
        code, said = attempt(command(source, out), capsys)
        assert code == 0, (done, said)
        assert content(tmp_path) == whole, done
    assert {name for name, _ in seen} >= {"manifest.json", "part", "beliefs", "labels",
                                          "output.parquet", "features/manifest.json"}  # fmt: skip


def test_damages_between_the_output_and_the_end_are_told_apart(
    whole, tmp_path, monkeypatch, capsys
):
    source, out = tmp_path / "rows.parquet", tmp_path / "kept.parquet"
    put(tmp_path, {"rows.parquet": whole["rows.parquet"]})
    ended = stopped_at(tmp_path, command(source, out), monkeypatch, Workspace, "clear")
    names = ["kept.parquet", "kept.labels.json", "kept.parquet.parts/manifest.json"]
    assert set(names) < set(ended)
    random, outcomes = random_of(4), Counter()
    for _ in range(60):
        put(tmp_path, ended)
        done = damage(tmp_path, random, names=names)
        after = content(tmp_path)
        code, said = attempt(command(source, out), capsys)
        outcomes[done.name, code] += 1
        if code == 0:
            assert content(tmp_path) == whole, done
        else:
            assert out.name in said, (done, said)
            assert "remove" in said, (done, said)
            assert content(tmp_path) == after, done
    assert outcomes["kept.parquet", 2] > 5, outcomes
    put(tmp_path, ended)
    assert attempt(command(source, out), capsys) == (0, "")
    assert content(tmp_path) == whole


def test_damaged_outputs_are_refused_as_inputs_and_never_written_over(whole, tmp_path, capsys):
    """An output that is chosen from again is an input that knows its checksums."""
    source, again = tmp_path / "kept.parquet", tmp_path / "again.parquet"
    put(tmp_path, {"kept.parquet": whole["kept.parquet"]})
    columns = ["name", "features", "breed", "height", "id", "label"]
    # The columns that a selection adds would be there twice.
    assert "rename or drop them" in attempt(command(source, again, "uniform"), capsys)[1]
    pq.write_table(pq.read_table(source, columns=columns), source, write_page_checksum=True)
    kept = source.read_bytes()
    assert attempt(command(source, again, "uniform"), capsys)[0] == 0
    expected = again.read_bytes()
    random = random_of(5)
    for number in range(60):
        put(tmp_path, {"kept.parquet": kept})
        done = damage(tmp_path, random, kinds=KINDS if number < 20 else ["flipped"])
        # Over an output that is there, damaged or not, nothing is written.
        if source.exists():
            before = source.read_bytes()
            code, said = attempt(command(source, source, "uniform"), capsys)
            assert code, done
            assert "kept.parquet" in said, done
            assert source.read_bytes() == before, done
        code, said = attempt(command(source, again, "uniform"), capsys)
        assert code or again.read_bytes() == expected, done
        assert not code or "kept.parquet" in said, done


def test_damaged_stores_are_refused_or_do_no_harm(tmp_path, capsys):
    features, labels = examples()
    saln.write_store(tmp_path / "store", features, labels)
    source, out = tmp_path / "store", tmp_path / "kept.parquet"
    arguments = [part for part in command(source, out) if part not in ("breed", "name")]
    arguments = [part for part in arguments if part not in ("--labels-column", "--id-column")]
    assert attempt(arguments, capsys)[0] == 0
    expected = out.read_bytes(), (tmp_path / "kept.labels.json").read_bytes()
    # To judge its labels left nothing in it.
    fresh = {name: data for name, data in content(tmp_path).items() if name.startswith("store/")}
    assert len(fresh) == 4 + ("store/verified.json" in fresh)
    random, outcomes = random_of(6), Counter()
    for _ in range(90):
        put(tmp_path, fresh)
        done = damage(source, random)
        code, said = attempt(arguments, capsys)
        outcomes[code] += 1
        if code == 0:
            found = out.read_bytes(), (tmp_path / "kept.labels.json").read_bytes()
            assert found == expected, done
        else:
            assert done.name in said, (done, said)
            assert not out.exists()
    assert outcomes[1] > 20, outcomes


def killed(arguments, moment):
    """Runs a command in a process that is killed as it is about to change the disk.

    Args:
        arguments: Of the command.
        moment: The how manieth change does not happen.

    Returns:
        Whether it was killed.
    """
    child = os.fork()
    if child == 0:
        left = moment

        def watch(event, facts):
            nonlocal left
            writes = event == "open" and facts[2] & (os.O_WRONLY | os.O_RDWR)
            if writes or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        code = 1
        try:
            code = main(arguments)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    # 2: the run before was killed when all was done, and the output is there.
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, 2)
    return os.WIFSIGNALED(status)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_kills_at_random_moments_change_no_byte(whole, tmp_path, capsys):
    source, out = tmp_path / "rows.parquet", tmp_path / "kept.parquet"
    random, kills = random_of(7), 0
    for begin in range(0, 60, 3):  # the first kills are spread over all that a run changes
        put(tmp_path, {"rows.parquet": whole["rows.parquet"]})
        moments = [begin + random.integers(3), *random.integers(60, size=random.integers(3))]
        for moment in moments:
            died = killed(command(source, out), int(moment))
            kills += died
            if out.exists():  # nothing of it is seen before it and the labels are whole
                assert out.read_bytes() == whole["kept.parquet"]
                assert (tmp_path / "kept.labels.json").read_bytes() == whole["kept.labels.json"]
            if not died:
                break
        else:
            code, said = attempt(command(source, out), capsys)
            if code:  # killed when all was done
                assert f"{out} exists" in said
        assert content(tmp_path) == whole
        assert not (tmp_path / "kept.parquet.parts").exists()
    assert kills > 20

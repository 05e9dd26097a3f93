"""The command line as a person meets it: right and wrong arguments, Ctrl-C, a broken image."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.digits import FLAGS

import saln
from saln.cli import display, main
from saln.cli.main import load_command
from saln.selection import SELECTORS

# What figures look like is the business of tests/report/.
pytestmark = pytest.mark.usefixtures("quick_figures")

SMALL = (
    *FLAGS, "--limit", "200", "--epochs", "1", "--seeds", "0", "--batch-size", "8",
)  # fmt: skip


def test_compare_prints_the_table_and_writes_the_run(run, tmp_path):
    status, out, err = run("compare", *SMALL, "--out", "here")
    assert status == 0, err
    lines = out.splitlines()
    arms = ("standard", "uniform", "saln", "jest", "rho-loss", "top-loss", "coherence")
    for arm in arms:
        line = next(line for line in lines if line.startswith(arm))
        assert re.search(r"[\d.]+ / [\d.]+ / [\d.]+ %", line)
    assert max(map(len, lines[: lines.index("")])) <= 100
    assert "\x1b" not in out + err  # no control codes where nobody watches
    assert "train" in err  # progress as plain lines
    assert "epoch 1/1" in err
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert set(summary["arms"]) == set(arms)
    labels = json.loads((tmp_path / "here" / "labels.json").read_text())
    assert labels["training_labels"] == summary["examples"]["train"]
    assert "Labels that look wrong" in (tmp_path / "here" / "report.html").read_text()
    assert (tmp_path / "here" / "report.html").exists()
    for ending in ("svg", "pdf", "csv"):
        names = [path.stem for path in (tmp_path / "here" / "figures").glob(f"*.{ending}")]
        assert len(names) == 19
        assert "wrong_labels_over_epoch" not in names  # nobody knows which are wrong
    for ending in ("md", "csv"):
        assert len(list((tmp_path / "here" / "tables").glob(f"*.{ending}"))) == 10
    environment = json.loads((tmp_path / "here" / "environment.json").read_text())
    assert environment["command"] == ["saln", "compare", *SMALL, "--out", "here"]


def test_the_default_folder_is_under_runs(run, tmp_path):
    status, _, _ = run("compare", *SMALL, "--methods", "uniform")
    assert status == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-")


def test_flags_go_over_the_file_and_the_file_over_the_preset(run, tmp_path):
    (tmp_path / "my.toml").write_text('epochs = 2\nbatch-size = 4\nmethods = ["uniform"]\n')
    status, _, err = run(
        *("compare", "--preset", "digits", "--config", "my.toml", *SMALL[len(FLAGS) :]),
        *("--out", "here"),
    )
    assert status == 0, err
    config = json.loads((tmp_path / "here" / "config.json").read_text())
    assert (config["epochs"], config["batch_size"]) == (1, 8)  # flags
    assert config["methods"] == ["uniform"]  # file
    assert config["learner"] == "small-cnn"  # preset


def test_features_are_made_once_and_found_by_compare(run, tmp_path):
    flags = ("--backbone", "pixels", "--limit", "200")
    status, out, err = run("features", *flags)
    assert status == 0, err
    assert err == "features: pixels at 16 px: 180 examples\n"
    store, rows, took = out.splitlines()
    path = Path(store.split(maxsplit=1)[1])
    assert path.parent == tmp_path / "cache" / "saln" / "features"
    assert rows == "rows     180 of 768 features"
    assert re.fullmatch(r"took     [\d.]+ s, [\d,]+ images/s", took)
    status, out, _ = run("features", *flags, "--json")
    found = json.loads(out)
    assert (found["path"], found["rows"], found["width"]) == (str(path), 180, 768)
    assert found["rows_computed"] == 0
    assert "nothing to do, they were there" in run("features", *flags)[1]
    status, _, err = run("compare", *SMALL, *flags, "--methods", "saln", "--out", "here")
    assert status == 0, err
    assert f"features: reused {path}" in err
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    spent = summary["arms"]["saln"]["seconds"]["features"]
    assert spent == pytest.approx(found["seconds"], abs=1e-3)


def test_ctrl_c_leaves_a_store_that_can_go_on(tmp_path):
    """A real SIGINT to a real process, in the middle of an extraction."""
    command = [
        sys.executable, "-m", "saln", "features", "--cache-dir", "cache", "--json",
        "--backbone", "efficientnet-lite0",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list(tmp_path.glob("cache/*/features.npy")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err, err[err.index("Traceback") :]
    assert err.rstrip().endswith("and the same command goes on after them")
    (folder,) = (tmp_path / "cache").iterdir()
    with pytest.raises(saln.errors.DataError, match="is not finished: 0 of 1,294 rows are done"):
        saln.FeatureStore.open(folder)


def test_report_redraws_what_was_deleted(run, tmp_path):
    run("compare", *SMALL, "--methods", "uniform,saln", "--out", "here")
    page = tmp_path / "here" / "report.html"
    before = page.read_text()
    page.unlink()
    shutil.rmtree(tmp_path / "here" / "figures")
    status, out, _ = run("report", "here")
    assert (status, out.strip()) == (0, "here/report.html")
    assert page.read_text() == before
    shutil.copytree("here", "there")
    status, out, _ = run("report", "here", "there", "--out", "both.html")
    assert (status, out.split()) == (0, ["here/report.html", "there/report.html", "both.html"])
    both = (tmp_path / "both.html").read_text()
    assert "<h2>here</h2>" in both
    assert "<h2>there</h2>" in both


def test_json_prints_the_summary_and_nothing_else(run, tmp_path):
    arguments = (*SMALL, "--methods", "uniform", "--out", "here", "--json")
    status, out, err = run("compare", *arguments)
    assert status == 0, err
    assert out == (tmp_path / "here" / "summary.json").read_text()
    assert json.loads(out)["arms"]["uniform"]["steps"] > 0
    assert (tmp_path / "here" / "report.html").exists()
    status, out, _ = run("compare", "--resume", "--out", "here", "--json")
    assert (status, out) == (0, (tmp_path / "here" / "summary.json").read_text())
    page = (tmp_path / "here" / "report.html").read_text()
    (tmp_path / "here" / "epochs.jsonl").write_text('{"arm": "uni\n')  # the record has the rows
    assert run("report", "here")[0] == 0
    assert (tmp_path / "here" / "report.html").read_text() == page


def test_a_preset_of_the_paper_shows_its_numbers_beside_ours(run, tmp_path):
    status, _, err = run(
        "compare", "--preset", "paper-oxford-pet", "--dataset", "digits", "--learner",
        "small-cnn", "--backbone", "pixels", "--image-size", "16", *SMALL, "--out", "here",
    )  # fmt: skip
    assert status == 0, err
    text = (tmp_path / "here" / "report.html").read_text()
    assert "Beside the paper&#39;s claims" in text or "Beside the paper's claims" in text
    assert "96.5 | " in text
    assert "0.2102 | " in (tmp_path / "here" / "tables" / "paper.csv").read_text()


def test_list_names_everything(run):
    status, out, _ = run("list")
    assert status == 0
    for name in ("digits", "hf:NAME-OR-PATH", "efficientnet-lite0", "resnet18", "standard",
                 "uniform", "saln", "jest", "rho-loss", "top-loss", "infobatch", "k-center",
                 "facility-location", "rs2", "coherence", "coherence-batch",
                 "balanced-curriculum", "curriculum", "remembered-loss", "reducible", "herding",
                 "small-loss", "cleanlab-pruned", "divbs", "feature-density",
                 "paper-oxford-pet", "offline-cifar10"):  # fmt: skip
        assert re.search(rf"(^|\s){re.escape(name)}[\s,]", out), name


def test_list_says_what_each_arm_requires_and_costs(run):
    _, out, _ = run("list")
    for name, selector in SELECTORS.items():
        lines = out[out.index(f"\n  {name} ") :].splitlines()[1:3]
        assert "cost" in lines[0], name
        for field in selector.requires:
            assert field in lines[1], name


def test_compare_takes_the_peers_by_name(run, tmp_path):
    """Two epochs, so that what was observed in the first is used in the second."""
    arms = "uniform,infobatch,rs2,facility-location"
    status, out, err = run("compare", *SMALL, "--epochs", "2", "--methods", arms, "--out", "here")
    assert status == 0, err
    rows = [
        json.loads(line) for line in (tmp_path / "here" / "epochs.jsonl").read_text().splitlines()
    ]
    first, second = ({row["arm"]: row["test_loss"] for row in rows[i::2]} for i in (0, 1))
    assert set(first) == set(second) == set(arms.split(","))
    assert len(set(second.values())) == 4
    table = out.splitlines()[: out.splitlines().index("")]
    assert max(map(len, table)) <= 100
    assert any(line.startswith("facility-location ") for line in table)
    assert "…" not in out  # long names cut nothing off


def test_help_and_version(run):
    assert run("--version")[1] == f"saln {saln.__version__}\n"
    status, out, _ = run("--help")
    assert status == 0
    assert "compare" in out
    status, out, _ = run("compare", "--help")
    assert status == 0
    assert "--filter-ratio" in out
    status, out, _ = run("compare", "--dataset", "folder:photos", "--epochs", "7", "--help")
    assert "default: resnet18)" in " ".join(out.split())  # not that of the digits
    status, out, _ = run("features", "--help")
    assert status == 0
    assert "--feature-size" in out
    assert run()[0] == 2


def test_the_default_run_has_wrong_labels_and_clean_has_none():
    reader = load_command("compare")
    assert reader.read([]).label_noise == 0.4
    assert reader.read(["--clean"]).label_noise == 0
    assert reader.read(["--clean"]) == dataclasses.replace(reader.read([]), label_noise=0.0)


def test_what_names_no_command_loads_nothing_heavy():
    code = (
        "import sys; from saln.cli import main\n"
        "statuses = [main([word]) for word in ('--version', '--help', 'no-such')]\n"
        "print(statuses, *sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "[0, 0, 2]" in found
    heavy = {"torch", "torchvision", "numpy", "scipy", "sklearn", "matplotlib", "rich", "tyro"}
    assert not heavy & set(found.split())


def one_line(status, err, expected=2):
    assert status == expected
    assert "Traceback" not in err, err[err.index("Traceback") :]
    return " ".join(err.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "unknown command 'train'; choose one of labels, compare, features, select"),
        (["lables"], "select, report, list (did you mean labels?)"),
        (["compare", "--dataset", "mnist"], "--dataset mnist is not allowed; give one of digits"),
        (["compare", "--dataset", "../photos"], "(did you mean folder:../photos?)"),
        (["features", "--dataset", "a/b.csv"], "(did you mean hf:a/b.csv?)"),
        (["select", "folder:x", "--selector", "saln", "--out", "o"], "--dataset folder:x'"),
        (["compare", "--methods", "jest:chunk=3"], "no hyperparameter chunk; it has chunks (a wh"),
        (["compare", "--methods", "saln,best"], "--methods best is not allowed; give one of s"),
        (["compare", "--preset", "fast"], "--preset fast is not allowed; give one of digits"),
        (["compare", "--learner", "resnet19"], "did you mean resnet1"),
        (["compare", "--backbone", "vgg"], "--backbone vgg is not allowed; give one of"),
        (["compare", "--filter-ratio", "1"], "filter ratio 1.0 is not allowed; give the share"),
        (["compare", "--filter-ratio", "-0.5"], "filter ratio -0.5 is not allowed"),
        (["compare", "--batch-size", "4000"], "--batch-size 4000 at --filter-ratio 0.8 needs"),
        (["compare", "--batch-size", "0"], "--batch-size 0 is not allowed; give a whole number"),
        (["compare", "--epochs", "many"], "--epochs"),
        (["compare", "--seeds", "0,a"], "--seeds"),
        (["compare", "--no-such-flag"], "--no-such-flag"),
        (["compare", "--label-noise", "1"], "--label-noise 1.0 is not allowed"),
        (["compare", "--config", "none.toml"], "--config none.toml cannot be read"),
        (["compare", "--dataset", "folder:nowhere"], "folder:nowhere is not a folder"),
        (["compare", "--dataset", "hf:./nowhere"], "hf:./nowhere does not exist"),
        (["compare", "--weights", "none.pt"], "weights file none.pt does not exist"),
        (["compare", "--resume"], "--resume needs the folder of the run to go on with; give --out"),
        (["compare", "--resume", "--out", "."], "--resume: . holds no run; give the folder of a"),
        (["features", "--dataset", "mnist"], "--dataset mnist is not allowed; give one of digits"),
        (["features", "--backbone", "vgg"], "--backbone vgg is not allowed; give one of"),
        (["features", "--feature-size", "4"], "--feature-size 4 is not allowed; give 8 to 2048"),
        (["features", "--workers", "-1"], "--workers -1 is not allowed"),
        (["features", "--batch-size", "0"], "--batch-size 0 is not allowed; give at least 1"),
        (["features", "--limit", "0"], "--limit 0 is not allowed"),
        (["features", "--data-rot", "x"], "--data-rot"),
        (["report"], "saln report needs the folder of a run; give one or more"),
        (["report", "."], ". holds no run; give a folder that 'saln compare' wrote"),
        (["list", "everything"], "saln list takes no arguments, not 'everything'"),
    ],
)  # fmt: skip
def test_bad_usage_is_said_in_a_line_with_exit_2(run, tmp_path, arguments, message):
    status, _, err = run(*arguments)
    assert message in one_line(status, err)
    assert not (tmp_path / "runs").exists()


def test_what_is_wrong_with_either_file_of_weights_is_said_before_the_data_is_opened(run, tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    networks = ["--learner", "resnet18", "--backbone", "resnet18", "--dataset", "folder:nowhere"]
    files = ["--weights", "none.pt", "--backbone-weights", "text.pt"]
    said = one_line(*run("compare", *networks, *files)[::2])
    assert "--weights: weights file none.pt does not exist; give a file" in said
    assert "--backbone-weights: weights file text.pt cannot be read" in said
    status, _, err = run("features", *networks[2:], *files[2:])
    assert "weights file text.pt cannot be read" in one_line(status, err)


@pytest.mark.parametrize("dataset", ["oxford-pet", "cifar10"])
def test_a_data_root_without_the_data_says_how_to_get_it(run, tmp_path, dataset):
    (tmp_path / "empty").mkdir()
    status, _, err = run("compare", "--dataset", dataset, "--data-root", "empty")
    said = one_line(status, err)
    assert f"--data-root empty does not hold {dataset}" in said
    assert "--download" in said
    assert list((tmp_path / "empty").iterdir()) == []  # nothing was fetched unasked


def test_an_empty_folder(run, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = run("compare", "--dataset", "folder:empty")
    assert "folder:empty holds no images in sub-folders" in one_line(status, err)
    (tmp_path / "empty" / "cat").mkdir()
    status, _, err = run("compare", "--dataset", "folder:empty")
    assert "folder:empty holds no images" in one_line(status, err)


def test_a_folder_with_one_class(run, image_folder):
    shutil.rmtree(image_folder / "red")
    status, _, err = run("compare", "--dataset", f"folder:{image_folder}")
    assert "has one class ('blue'); there is nothing to tell apart" in one_line(status, err)


def test_an_unknown_key_in_the_config(run, tmp_path):
    (tmp_path / "my.toml").write_text("epoch = 3\n")
    status, _, err = run("compare", "--config", "my.toml")
    assert "my.toml: unknown key 'epoch'; choose among preset, config, dataset" in one_line(
        status, err
    )


def test_out_that_holds_another_run(run, tmp_path):
    run("compare", *SMALL, "--methods", "uniform", "--out", "here")
    before = (tmp_path / "here" / "epochs.jsonl").read_bytes()
    status, _, err = run("compare", *SMALL, "--out", "here")
    assert "--out here holds another run; give a new or an empty folder" in one_line(status, err)
    assert (tmp_path / "here" / "epochs.jsonl").read_bytes() == before


def test_a_broken_image_fails_the_run_and_names_the_file(run, image_folder):
    for path in (image_folder / "red").iterdir():
        path.write_bytes(b"no image")
    status, _, err = run(
        "compare", "--dataset", f"folder:{image_folder}", "--learner", "small-cnn",
        "--backbone", "pixels", "--image-size", "12", "--epochs", "1", "--batch-size", "4",
        "--methods", "saln", "--out", "here",
    )  # fmt: skip
    said = one_line(status, err, expected=1)
    assert re.search(r"red/\d\d\.png cannot be read as an image .* repair the file", said)


def test_a_diverging_arm_is_exit_1_with_the_cure(run, tmp_path):
    status, out, err = run(
        "compare", *SMALL, "--methods", "uniform", "--learning-rate", "1e30", "--out", "here"
    )
    said = one_line(status, err, expected=1)
    assert re.search(
        r"uniform, seed 0: the loss is (nan|inf) in epoch 1.*lower --learning-rate", said
    )
    assert "uniform was stopped" in out
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    assert "error" in summary["arms"]["uniform"]


def test_debug_shows_where(run):
    with pytest.raises(saln.errors.InputError):
        run("compare", "--dataset", "mnist", "--debug")


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [
        (signal.SIGINT, 130, "saln: stopped"),
        (signal.SIGTERM, 143, "saln: stopped by SIGTERM"),
        (signal.SIGHUP, 129, "saln: stopped by SIGHUP"),
    ],
)
def test_a_signal_leaves_valid_files(warm, tmp_path, number, status, said):
    """A real one to a real process, and to its loader, in the middle of training."""
    out = tmp_path / "here"
    process = warm.start(
        ["compare", "--epochs", "500", "--seeds", "0", "--limit", "200", "--batch-size", "8",
         "--workers", "1", "--methods", "uniform", "--out", out],
        tmp_path, environment={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    rows = out / "epochs.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (rows.exists() and rows.stat().st_size > 1000):
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as Slurm does, and a terminal that is closed
    assert process.wait() == status, (tmp_path / "process.err").read_text()[-3000:]
    err = (tmp_path / "process.err").read_text()
    assert "Traceback" not in err, err[err.index("Traceback") :]
    assert err.rstrip().endswith(said)
    assert f"the rows so far are in {rows}; go on with: saln compare --resume --out {out}" in err
    parsed = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [row["epoch"] for row in parsed] == list(range(1, len(parsed) + 1))
    json.loads((out / "config.json").read_text())
    assert not (out / "summary.json").exists()
    status = main(["report", str(out)])
    assert status == 2  # told that the run was not finished


def test_resume_takes_the_settings_from_the_folder(run, tmp_path, monkeypatch):
    epoch = display._Plain.epoch

    def stopping(self, row, epochs):
        epoch(self, row, epochs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(display._Plain, "epoch", stopping)
        status, _, err = run("compare", *SMALL, "--methods", "uniform,saln", "--out", "a run")
    assert status == 130
    assert "go on with: saln compare --resume --out 'a run'" in err
    status, _, err = run("report", "a run")
    assert "finish it with 'saln compare --resume --out 'a run''" in one_line(status, err)
    status, _, err = run("compare", "--resume", "--out", "a run", "--epochs", "3")
    assert "--epochs was 1 when the run in a run began and is 3 now" in one_line(status, err)
    status, _, err = run("compare", "--resume", "--out", "a run", "--preset", "paper-cifar10")
    assert "--preset was digits when" in one_line(status, err)
    status, out, err = run("compare", "--resume", "--out", "a run")
    assert status == 0, err
    assert "uniform, seed 0" not in err
    assert "saln, seed 0: epoch 1/1" in err
    assert (tmp_path / "a run" / "report.html").exists()
    status, out, _ = run("compare", "--resume", "--out", "a run")
    assert (status, out) == (0, "a run holds a finished run: nothing to resume\n")
    (tmp_path / "a run" / "report.html").unlink()  # killed just before it was drawn
    assert run("compare", "--resume", "--out", "a run")[0] == 0
    assert (tmp_path / "a run" / "report.html").exists()


def test_the_installed_command_works(tmp_path):
    """The console script itself."""
    command = shutil.which("saln", path=str(Path(sys.executable).parent))
    assert command, "the package is not installed"
    found = subprocess.run([command, "list"], capture_output=True, text=True, check=True)
    assert "data sets" in found.stdout


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_waiting_threads_sleep_unless_the_user_says_otherwise(own):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if own is None else {"OMP_WAIT_POLICY": own}
    code = (
        "import os, sys\nfrom saln.cli import main\n"
        "loaded = 'torch' in sys.modules\nmain(['--version'])\n"
        "print(loaded, os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"False {own or 'PASSIVE'}"

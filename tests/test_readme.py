"""What the README and the docs show must work as it stands there."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
from helpers import golden
from helpers.quick_figures import not_drawn

from saln.cli import main
from saln.cli.main import load_command
from saln.data.dataset_registry import DATASETS
from saln.experiments.config import load_preset
from saln.features.network_registry import NETWORKS
from saln.report import catalog, page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
DOCUMENTS["README.md"] = README
SNIPPETS = {
    f"{name}-{number}": block
    for name, text in DOCUMENTS.items()
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL), 1)
}


def commands(text):
    """Every line of every bash block, as the shell would split it."""
    blocks = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [found for line in lines if (found := shlex.split(line, comments=True))]


def saln_calls(text):
    """The arguments of `saln`, also where it is started by torchrun or python -m."""
    for words in commands(text):
        if words[0] == "saln":
            yield words[1:]
        elif "-m" in words and "saln" in words:
            yield words[words.index("saln") + 1 :]


@pytest.mark.parametrize("name", SNIPPETS)
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's own, of torch
@pytest.mark.filterwarnings("ignore::UserWarning:lightning")  # advice about workers and logging
def test_snippets_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "digits" in DATASETS  # which loads ours
    assert "pixels" in NETWORKS
    for registry in (DATASETS, NETWORKS):  # some snippets add their own
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.setattr(catalog, "_added", [])
    # As a module of its own: what this file imports from __future__ is not the snippet's.
    exec(compile(SNIPPETS[name], name, "exec", dont_inherit=True), {"__name__": name})


def test_the_figure_of_the_page_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "_added", [])
    (figure,) = (block for block in SNIPPETS.values() if "from saln.report import Bars" in block)
    exec(compile(figure, "figure", "exec"), {"__name__": "figure"})
    shutil.copytree(golden.FOLDER / "run", tmp_path / "run")
    with not_drawn(but="energy"):
        text = page.write_report(tmp_path / "run").read_text()
    assert '<h2 id="section-energy">Energy</h2>' in text
    assert "Energy, one bar an arm: standard " in text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist_and_their_flags_are_allowed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()  # that the examples of `saln labels` name
    (tmp_path / "data.csv").touch()
    monkeypatch.setattr(page, "write_report", lambda folder: folder)
    monkeypatch.setattr(page, "write_joined", lambda folders, out: out)
    for command, *arguments in saln_calls(DOCUMENTS[name]):
        if "--resume" in arguments:  # what `saln compare` has written before
            folder = Path(arguments[arguments.index("--out") + 1])
            folder.mkdir(parents=True, exist_ok=True)
            settings = json.dumps(load_preset("digits").to_json())
            (folder / "config.json").write_text(settings)
        if command == "labels" and arguments[0] == "apply":
            command, *arguments = arguments
        if command in ("apply", "compare", "features", "labels", "select"):
            load_command(command).read(arguments)
        else:
            assert main([command, *arguments]) == 0
    for words in commands(DOCUMENTS[name]):
        assert words[0] in ("saln", "pip", "make", "torchrun", "python", "accelerate", "cd", "git")
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", MAKEFILE, flags=re.MULTILINE)
        for path in (word for word in words if word.endswith(".py")):
            assert (ROOT / path).exists()


def test_the_readme_has_the_two_commands_and_calls_saln():
    assert [words[1] for words in commands(README) if words[0] == "make"] == ["compare", "test"]
    assert len(list(saln_calls(README))) >= 5
    assert sum(len(list(saln_calls(text))) for text in DOCUMENTS.values()) > 15


def test_the_workflows_call_what_a_person_calls():
    called = {
        target
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for target in re.findall(r"run: make ([\w-]+)", path.read_text())
    }
    assert called == {"compare", "test", "docs"}
    for target in called:
        assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)


def test_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    shown = [
        extra
        for text in DOCUMENTS.values()
        for names in re.findall(r"pip install[^\n]*\.\[([\w,]+)\]", text)
        for extra in names.split(",")
    ]
    assert shown
    assert set(shown) <= set(extras)


def test_flags_in_the_text_exist():
    config, *others = (
        {field.name.replace("_", "-") for field in dataclasses.fields(load_command(name).settings)}
        for name in ("compare", "select", "features", "labels", "apply")
    )
    shown = []
    for text in DOCUMENTS.values():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        shown += re.findall(r"--([a-z][a-z-]*)(?: (?!-)([\w.,-]*[\w]))?", prose)
    assert len(shown) > 8
    for name, value in shown:
        assert name.removeprefix("no-") in config.union(*others), name
        if name in config and value and not value.isupper() and not value.startswith("FILE"):
            load_command("compare").read([f"--{name}", value])


def test_files_that_are_named_exist():
    for text in DOCUMENTS.values():
        for path in re.findall(r"`((?:docs|examples|benchmarks|results)/[\w./-]+)`", text):
            assert (ROOT / path).exists(), path

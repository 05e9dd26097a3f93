"""The wheel holds what it needs and nothing else, and runs outside the checkout."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def call(*command, **options):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions):
    (path,) = distributions.glob("*.whl")
    return path


def test_the_source_distribution_is_slim(distributions):
    (path,) = distributions.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert not any(name.startswith(("tests", "results", "benchmarks", "docs")) for name in names)
    assert path.stat().st_size < 1_000_000


def test_the_package_index_would_take_both(distributions):
    files = [path for path in distributions.iterdir() if path.name.startswith("saln-")]
    assert len(files) == 2
    call(sys.executable, "-m", "twine", "--no-color", "check", "--strict", *files)


def test_the_wheel_holds_the_package_and_its_data_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    source = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "saln").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if ".dist-info/" not in name} == source
    assert "saln/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_metadata_are_complete(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        found = Parser().parsestr(archive.read(name).decode())
    assert found["Name"] == "saln"
    assert found["License-Expression"] == "Apache-2.0"
    assert found["Requires-Python"] == ">=3.11"
    assert found["Description-Content-Type"] == "text/markdown"
    assert found.get_payload().startswith("# SALN")
    # The index has no other file of the repository: a relative link would lead nowhere.
    assert not re.findall(r"\]\((?!https://)[^)]*\)", found.get_payload())
    classifiers = found.get_all("Classifier")
    assert "Typing :: Typed" in classifiers
    versions = {f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)}
    assert versions <= set(classifiers)


def test_links_of_the_readme_lead_into_the_repository_where_its_address_is_known():
    portable = runpy.run_path(str(ROOT / "hatch_build.py"))["portable"]
    text = "![A page](docs/a.png)\n\nSee [Start](docs/index.md), [paper](https://x.org/1)."
    assert portable(text, "https://h/o/r") == (
        "![A page](https://h/o/r/raw/main/docs/a.png)\n\n"
        "See [Start](https://h/o/r/blob/main/docs/index.md), [paper](https://x.org/1)."
    )
    assert portable(text, None) == "\n\nSee Start (`docs/index.md`), [paper](https://x.org/1)."


def save_tiles(folder):
    """Tiles of gray, in a folder of dark and one of bright ones."""
    for number in range(24):
        path = folder / ("dark", "bright")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 5 * number + 120 * (number % 2)).save(path)


def test_the_commands_run_outside_the_checkout(wheel, tmp_path):
    """In an environment of its own that sees the dependencies, but not this checkout."""
    clean = tmp_path / "env"
    call(sys.executable, "-m", "venv", "--without-pip", clean)
    python = clean / ("Scripts" if os.name == "nt" else "bin") / "python"
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel
    )
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(call(python, "-c", ask).strip())
    # A path file's folders are searched, but their own path files, such as that of an
    # editable install, are not read.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    home, place = tmp_path / "home", tmp_path / "place"
    home.mkdir()
    place.mkdir()
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    options = {"cwd": place, "env": environment}
    where = call(python, "-c", "import saln; print(saln.__file__)", **options)
    assert Path(where.strip()).is_relative_to(packages)
    flags = "--methods uniform,saln --limit 80 --epochs 1 --seeds 0 --batch-size 8 --out run"
    out = call(python.with_name("saln"), "compare", *flags.split(), **options)
    assert "report" in out
    assert (place / "run" / "report.html").read_text().startswith("<!doctype html>")
    save_tiles(place / "photos")
    labels = ("labels", "photos", "--backbone", "pixels", "--feature-size", "8")
    assert "judged" in call(python.with_name("saln"), *labels, **options)
    assert (place / "labels-photos" / "labels.html").exists()
    assert str(ROOT) not in (place / "run" / "environment.json").read_text()

"""The notebook of the quick start: its cells run in order, and give what its text says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

PATH = Path(__file__).parents[2] / "examples" / "quickstart.ipynb"


# A comparison of one epoch and one seed, without figures: what it says is tested elsewhere.
def test_the_notebook_runs(tmp_path, monkeypatch, capsys, warm):
    def run(command, *, check, stderr):
        assert command[:3] == [sys.executable, "-m", "saln"]
        assert check
        done = warm.run(command[3:], tmp_path)
        assert done.returncode == 0, done.stderr
        return done

    monkeypatch.setattr(subprocess, "run", run)
    notebook = json.loads(PATH.read_text())
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(code):
        # As a kernel does it, but in this process, which has imported torch already.
        source = "".join(cell["source"]).replace('"0,1,2,3,4"', '"0"').replace('"20"', '"1"')
        source = source.replace("epochs=60", "epochs=20")
        exec(compile(source, f"cell {number}", "exec"), names)
    assert 0.35 < names["beliefs"].noise_rate < 0.45
    doubted, is_wrong = names["doubted"], names["is_wrong"]
    assert is_wrong[doubted].mean() > 0.9
    assert is_wrong[~doubted].mean() < 0.05
    assert names["accuracies"]["coherence"] > names["accuracies"]["uniform"]
    printed = capsys.readouterr().out
    assert re.search(r"^saln compare --methods uniform,coherence ", printed, re.MULTILINE)
    assert (tmp_path / "quickstart-run" / "report.html").exists()

"""Figures of any names, whatever the user's matplotlib is set to, without a word from it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings

import matplotlib
import pytest

from saln.report.drawing import LONGEST_NAME, draw
from saln.report.values import Bars, Figure, HeatMap, IntervalCurve, Panel

NAMES = ("猫", "كلب", "🦉", "a" * 300, "two\nlines", "\udcff.png", "$x^", "\x07bell", "", "plain")


def heat(names):
    values = tuple(tuple(0.5 for _ in names) for _ in range(2))
    return HeatMap("h", "mix", "class", "", ("saln", "jest"), names, (Panel("", values),), 1.0, "")


@pytest.mark.parametrize("names", [NAMES, tuple(f"class {n} of many" for n in range(200))])
def test_any_names_are_drawn_without_warnings(names, caplog):
    line = IntervalCurve("saln", (1.0, 2.0), (0.1, 0.2), (0.1, 0.2), (0.1, 0.2))
    figures = [
        heat(names),
        Figure("f", "t" * 300, "猫", "y", (line,), ""),
        Bars("b", "t", "s", ("saln",), ("load",), ((1.0,),), ""),
    ]
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        for figure in figures:
            drawn = draw(figure, ("saln", "jest"))
            assert drawn.svg.encode()
            assert drawn.pdf.startswith(b"%PDF")
    assert caplog.records == []


def test_long_names_leave_room_for_what_is_drawn():
    from saln.report.drawing import _plain

    assert _plain("a" * 300) == "a" * (LONGEST_NAME - 1) + "…"
    assert _plain("two\nlines") == "two lines"
    assert _plain("\udcff.png") == "?.png"
    assert _plain("猫") == "猫"


def test_a_users_own_settings_change_nothing():
    plain = draw(heat(("a", "b")), ("saln", "jest"))
    mine = {"text.usetex": True, "lines.linewidth": 9, "savefig.transparent": True,
            "font.family": "no such font", "savefig.dpi": 10}  # fmt: skip
    with matplotlib.rc_context(mine):
        assert draw(heat(("a", "b")), ("saln", "jest")) == plain
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_an_unknown_backend_and_no_place_for_a_cache_are_passed_over(tmp_path):
    code = (
        "import os\n"
        "from saln.report.drawing import draw\n"
        "from saln.report.values import Bars\n"
        "draw(Bars('b', 't', 's', ('a',), ('load',), ((1.0,),), ''), ('a',))\n"
        "print(os.environ['MPLBACKEND'])\n"
    )
    (tmp_path / "file").touch()
    environment = os.environ | {
        "MPLBACKEND": "no such backend", "MPLCONFIGDIR": str(tmp_path / "file" / "none"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "no such backend\n", "")

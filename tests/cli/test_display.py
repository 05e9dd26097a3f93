"""What a person sees on a terminal."""

from __future__ import annotations

import io

from helpers.experiments_rows import typed
from rich.console import Console
from rich.progress import Progress, TextColumn

from saln.cli.display import TimeLeft, _Live


def test_the_live_display_shows_arm_progress_speed_and_result():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    columns = [
        TextColumn(f"{{task.{name}}}")
        for name in ("description", "completed", "fields[speed]", "fields[result]")
    ]
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        live = _Live(progress)
        live.advance(1)  # before anything began: nothing to show, nothing to break
        live.begin("saln, seed 0", 80)
        live.advance(40)
        live.epoch(typed()[2], epochs=2)
        progress.refresh()
        (task,) = progress.tasks
        assert (task.description, task.completed, task.total) == ("saln, seed 0", 40, 80)
        assert task.fields["speed"].endswith(" images/s")
        assert task.fields["result"] == "epoch 1/2 test 30.0%"
        live.epoch(typed()[3], epochs=2)
        live.begin("jest, seed 0", 10)  # takes the place of the one before
        assert [task.description for task in progress.tasks] == ["jest, seed 0"]
    shown = screen.getvalue()
    assert "saln, seed 0" in shown
    # Of every arm the last epoch stays on the screen as a line.
    assert "saln, seed 0: epoch 2/2  train 50.0%  validation 50.0%  test 50.0%" in shown


def test_the_time_left_is_that_of_all_arms_by_what_their_epochs_took():
    # Made-up epochs of uniform take 1 + 2 + 5 = 8 s with seed 0, 12 s with seed 1; saln's 20 s.
    left = TimeLeft(["uniform", "saln"], seeds=2, epochs=2)
    said = [left(row) for row in typed()]
    assert said[0] == "  about 56 s left in all"  # 7 epochs, each like the one that is known
    assert said[2] == "  about 76 s left in all"  # 2 of 8 s and 3 of 20 s
    assert said[4] == "  about 49 s left in all"  # 1 of 28/3 s and 2 of 20 s
    assert said[-1] == ""

"""Finds the command, runs it, and says in a line what ended it.

Only light modules are imported here: each command imports its own when it is run.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import saln
from saln.cli.process import (
    OutputError,
    Stopped,
    guarded_streams,
    own_warnings,
    print_error,
    received,
    stopping_signals,
)
from saln.errors import InputError, SalnError

_COMMANDS = {
    "labels": "find the wrong labels of a data set, look at them, repair them",
    "compare": "train several ways side by side, say which is better, write a report",
    "features": "compute and store the features of a data set by a frozen network",
    "select": "choose examples once, before training, and write them to a file",
    "report": "redraw the report of a run, or of several runs together",
    "list": "list data sets, networks, selectors and presets",
}
_OVERVIEW = f"""\
usage: saln COMMAND [FLAGS]

Finds the wrong labels of a data set, and trains on the few examples worth a gradient.

commands:
{"".join(f"  {name:<8}  {summary}{chr(10)}" for name, summary in _COMMANDS.items())}
'saln COMMAND --help' lists a command's flags. 'saln --version' prints the version.
With --debug an error shows where in the code it happened.
"""
# What is left after Ctrl-C; a comparison says itself how it goes on.
_KEPT = {
    "features": "; finished shards are kept, and the same command goes on after them",
    "labels": "; finished features are kept, and the same command goes on after them",
    "labels apply": "; nothing is lost: the same command goes on, and --undo takes it back",
    "select": "; finished parts are kept, and the same command goes on after them",
}


def load_command(name: str) -> Callable[[Sequence[str]], int]:
    """Imports a command: it takes its arguments and gives the exit status."""
    if name not in (*_COMMANDS, "apply"):
        near = difflib.get_close_matches(name, _COMMANDS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"unknown command {name!r}; choose one of {', '.join(_COMMANDS)}{hint}")
    collecting = gc.isenabled()
    gc.disable()  # of modules hardly anything is garbage
    try:
        module = importlib.import_module(f"saln.cli.{name}_command")
    finally:
        if collecting:
            gc.enable()
    command: Callable[[Sequence[str]], int] = module.COMMAND
    return command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Signals, standard streams and warnings are looked after here alone: whoever uses the library
    keeps their own.

    Returns:
        0 when all went well, 1 for a failed run, 2 for bad usage; 130 after Ctrl-C, 143 after
        SIGTERM and 129 after SIGHUP.
    """
    # Before torch is loaded, which reads it once: its threads that wait would spin, and on a
    # machine that others use take the cores from those that work.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]  # wherever it stands
    with guarded_streams(), own_warnings(debug=debug), stopping_signals():
        try:
            status = _status(words, debug, own_process=arguments is None)
            sys.stdout.flush()
        except OutputError as error:
            if not error.closed:  # else its reader has seen enough: `saln list | head`
                print_error(
                    f"standard output cannot be written ({error}); what was made is kept: give "
                    "another place for what is printed"
                )
            return 1
        return status


def _status(words: list[str], debug: bool, own_process: bool) -> int:
    """Runs a command; what ends it is said in a line, or raised with ``--debug``."""
    try:
        return _run(words, own_process)
    except SystemExit as stop:  # after --help
        return stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt as stop:
        if debug:
            raise
        number = stop.number if isinstance(stop, Stopped) else signal.SIGINT.value
        return _stopped_by(number, words)
    except OutputError:  # main() knows what to say, and where it can still be said
        raise
    except Exception as error:
        if debug:
            raise
        if received:
            return _stopped_by(received[0], words)
        if isinstance(error, SalnError):
            print_error(str(error))
            return error.exit_code
        # Nobody thought of this one: its kind is all that can be said of the cause.
        print_error(f"{type(error).__name__}: {error}; --debug shows where it arose")
        return 1


def _stopped_by(number: int, words: list[str]) -> int:
    how = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    kept = _KEPT.get(" ".join(words[:2])) or _KEPT.get(" ".join(words[:1]), "")
    sys.stderr.write(f"\nsaln: stopped{how}{kept}\n")
    return 128 + number


def _run(words: list[str], own_process: bool) -> int:
    if not words or words[0] in ("-h", "--help"):
        (sys.stdout if words else sys.stderr).write(_OVERVIEW)
        return 0 if words else 2
    if words[0] == "--version":
        sys.stdout.write(f"saln {saln.__version__}\n")
        return 0
    # A command of two words, found before the first one's own, which imports torch.
    name, rest = ("apply", words[2:]) if words[:2] == ["labels", "apply"] else (words[0], words[1:])
    command = load_command(name)
    if own_process:
        gc.freeze()  # what was imported stays: looking through it takes a second of a short run
    try:
        return command(rest)
    except RuntimeError as error:
        if "killed by signal" in str(error):
            # A signal to the whole process group may reach torch's loader processes first. Then
            # ours is on its way, and what it raises here says better what happened.
            time.sleep(1)
        raise

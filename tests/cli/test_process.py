"""What a command does to its process: signals, standard streams, warnings; and gives back."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

import saln
from saln.cli import main
from saln.errors import InputError
from saln.integrations.ray import _kept_handler

# A command that waits, in the place of another: no library has to be loaded for it.
WAITING = """
import importlib, sys, time

def wait(arguments):
    print("ready", flush=True)
    time.sleep(60)
    return 0

main = importlib.import_module("saln.cli.main")
main.load_command = lambda name: wait
sys.exit(main.main([sys.argv[1]]))
"""


@pytest.fixture(autouse=True)
def no_handlers():
    """Another test's library, as Ray, may have left some of its own, which a command would keep."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    others = [signal.signal(number, signal.SIG_DFL) for number in numbers]
    yield
    for number, handler in zip(numbers, others, strict=True):
        signal.signal(number, handler)


def replace_commands(monkeypatch, command):
    """Lets ``saln list`` and any other command be a function of the arguments."""
    module = importlib.import_module("saln.cli.main")  # the package has its function by that name
    monkeypatch.setattr(module, "load_command", lambda name: command)


def waiting(command, *numbers, before=""):
    """Starts a command, sends it signals when it is at work; gives status and what it said."""
    process = subprocess.Popen(
        ["sh", "-c", f'{before} exec "$@"', "sh", sys.executable, "-c", WAITING, command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    for number in numbers:
        process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


@pytest.mark.parametrize(
    ("command", "number", "status", "said"),
    [
        ("compare", signal.SIGTERM, 143, "saln: stopped by SIGTERM\n"),
        ("features", signal.SIGHUP, 129,
         "saln: stopped by SIGHUP; finished shards are kept, and the same command goes on after "
         "them\n"),
        ("select", signal.SIGTERM, 143,
         "saln: stopped by SIGTERM; finished parts are kept, and the same command goes on after "
         "them\n"),
        ("list", signal.SIGINT, 130, "saln: stopped\n"),
    ],
)  # fmt: skip
def test_a_signal_ends_a_command_with_a_word(command, number, status, said):
    assert waiting(command, number) == (status, "\n" + said)


def test_what_is_to_be_ignored_is_ignored():
    """Under nohup a closed terminal stops nothing."""
    status, said = waiting("list", signal.SIGHUP, signal.SIGTERM, before="trap '' HUP;")
    assert (status, said) == (143, "\nsaln: stopped by SIGTERM\n")


def test_signals_streams_and_warnings_are_given_back(monkeypatch):
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    streams, show = (sys.stdout, sys.stderr), warnings.showwarning
    inside = []

    def look(arguments):
        inside.append([signal.getsignal(number) for number in numbers])
        raise InputError("no; give another")

    replace_commands(monkeypatch, look)
    assert main(["list"]) == 2
    assert inside[0][0] is not before[0]
    assert [signal.getsignal(number) for number in numbers] == before
    assert (sys.stdout, sys.stderr) == streams
    assert warnings.showwarning is show


def test_somebodys_own_handler_stays(monkeypatch):
    def own(number, frame):
        raise AssertionError

    seen = []
    replace_commands(
        monkeypatch, lambda arguments: seen.append(signal.getsignal(signal.SIGTERM)) or 0
    )
    before = signal.signal(signal.SIGTERM, own)
    try:
        assert main(["list"]) == 0
        assert seen == [own]
        assert signal.getsignal(signal.SIGTERM) is own
        with _kept_handler():  # as Ray does when it starts
            signal.signal(signal.SIGTERM, lambda number, frame: None)
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_using_the_library_touches_no_signal():
    code = (
        "import signal; before = [signal.getsignal(n) for n in (1, 2, 15)]\n"
        "import saln, saln.cli, saln.cli.process\n"
        "assert before == [signal.getsignal(n) for n in (1, 2, 15)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def shell(line, **environment):
    """Runs a shell's line in which $SALN is the command."""
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, check=False,
        env={**os.environ, "SALN": f"{sys.executable} -m saln", **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_closed_and_full_streams():
    assert shell("$SALN --version >&-") == (0, b"", b"")
    assert shell("$SALN --version >&- 2>&- <&-") == (0, b"", b"")
    assert shell("$SALN no-such 2>&-")[0] == 2
    assert shell("$SALN no-such 2>/dev/full")[0] == 2
    status, _, said = shell("$SALN --version >/dev/full")
    assert status == 1
    assert said.decode() == (
        "saln: error: standard output cannot be written (No space left on device); what was made "
        "is kept: give another place for what is printed\n"
    )
    # A reader that has seen enough is no fault to speak of.
    _, _, said = shell('($SALN --help; echo "status $?" >&2) | true')
    assert said in (b"status 0\n", b"status 1\n")  # as whether it was still there


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_terminals_of_any_encoding(encoding):
    """Of what is given, too, and of names that are no text in it."""
    for word in ("\u4e2d", os.fsdecode(b"\xff")):
        status, _, said = shell(f"$SALN '{word}'", PYTHONIOENCODING=encoding)
        assert status == 2
        assert said.startswith(b"saln: error: unknown command ")
        assert said.count(b"\n") == 1
    assert shell("$SALN '\u4e2d'", LC_ALL="C")[0] == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_table_on_a_terminal_that_is_not_utf_8(monkeypatch, encoding):
    """Our own signs have others for it; a name is written in a way that says which it is."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    text = "50.0 \u00b1 0.1 \u2013 3 \u00d7 \u4e2d \udcff\n"
    replace_commands(monkeypatch, lambda arguments: sys.stdout.write(text) and 0)
    assert main(["list"]) == 0
    assert written.getvalue() == b"50.0 +- 0.1 - 3 x \\u4e2d \\udcff\n"


class Broken(io.StringIO):
    """A terminal that has been closed."""

    def write(self, text):
        raise OSError(errno.EIO, "Input/output error")


def test_a_terminal_that_has_gone_stops_no_work(monkeypatch):
    done = []

    def work(arguments):
        for number in range(3):
            sys.stderr.write(f"epoch {number}\n")
            done.append(number)
        return 0

    monkeypatch.setattr(sys, "stderr", Broken())
    replace_commands(monkeypatch, work)
    assert main(["list"]) == 0
    assert done == [0, 1, 2]


def test_other_libraries_warnings_stay_inside(monkeypatch, capsys):
    def explicit(arguments):
        for text, file in (
            ("Glyph 20013 missing", "/x/PIL/Image.py"),
            ("odd\nrows", saln.__file__),
        ):
            warnings.showwarning(UserWarning(text), UserWarning, file, 3)
        return 0

    replace_commands(monkeypatch, explicit)
    assert main(["list"]) == 0
    assert capsys.readouterr().err == "saln: warning: odd rows\n"


def test_an_error_is_one_line_whatever_is_in_it(monkeypatch, capsys):
    def fail(arguments):
        raise InputError("a\nb \x1b[31m\udcff; give another")

    replace_commands(monkeypatch, fail)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "saln: error: a b \\x1b[31m\\udcff; give another\n"


def test_a_stop_that_python_loses_is_a_stop_all_the_same(monkeypatch, capsys):
    def look(arguments):
        # As in the middle of a fork, where Python drops what a handler raises.
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("DataLoader worker exited unexpectedly")

    replace_commands(monkeypatch, look)
    assert main(["list"]) == 130
    err = capsys.readouterr().err
    assert "saln: stopped" in err
    assert "RuntimeError" not in err
    replace_commands(monkeypatch, lambda arguments: 0)
    assert main(["list"]) == 0  # and the next command knows nothing of it


def test_a_stop_inside_of_a_finalizer_comes_again(monkeypatch, capsys):
    class Late:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)

    def look(arguments):
        Late()
        time.sleep(5)  # what goes on where the signal is lost
        return 0

    replace_commands(monkeypatch, look)
    assert main(["list"]) == 143
    assert "saln: stopped by SIGTERM" in capsys.readouterr().err

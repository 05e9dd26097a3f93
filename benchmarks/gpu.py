"""What only a GPU can show, in one call of at most ten minutes.

    python benchmarks/gpu.py OUT --data-root ../data --scratch FOLDER    on a machine with a GPU
    python benchmarks/gpu.py OUT --device cpu --tiny                     to see that it works
    python benchmarks/gpu.py OUT --parts tests,fiedler --minutes 1       some of the parts

The tests that need CUDA, the table of Fiedler vectors, extraction against a bare loop, and
networks from scratch on CIFAR-10, each a script of its own, one after the other. OUT gets what each
printed (``NAME.txt``), the rows of the networks (``scratch.jsonl``), and a row a part
(``parts.jsonl``). A part that takes longer than its share of the time is stopped, and the others
go on; one whose data are not there is left out. FOLDER is what ``tuned_scratch.py --prepare`` made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
# They compare CUDA with the CPU; elsewhere they are skipped.
TESTS = ("tests/spectral/test_fiedler.py", "tests/loading/test_candidate_fields.py")
ARMS = "standard;uniform;saln;coherence;balanced-curriculum+targets(beliefs=0.3,features=0.3)"


class Part(NamedTuple):
    """A script, and which share of the whole time it may take at most."""

    name: str
    arguments: list[str]
    share: float
    missing: str = ""  # Why it is left out


def parts_of(args: argparse.Namespace) -> list[Part]:
    """The parts in their order; the last has the time that the others leave."""
    device, data = ["--device", args.device], ["--data-root", str(args.data_root)]
    sizes = ["--sizes", "64"] if args.tiny else []
    some = ["--dataset", "digits", "-n", "16", "--rounds", "1", "--workers", "0"]
    scratch = ["--arms", ARMS, "--noises", "clean:0,symmetric:0.4", "--processes", "14"]
    if args.tiny:
        scratch = ["--arms", "uniform;saln", "--noises", "clean:0", "--rates", "0.05"]
        scratch += ["--seeds", "0", "--epochs", "1", "--width", "4", "--lanes", "1"]
    scratch = [str(args.scratch), "--rows", str(args.out / "scratch.jsonl"), *scratch]
    pets = some if args.tiny else []
    no_data = "" if args.tiny or args.data_root else "give --data-root"
    no_folder = "" if args.scratch else "give --scratch, what tuned_scratch.py --prepare made"
    parts = [
        Part("tests", ["-m", "pytest", "-q", "-k", "cuda or GPU", *TESTS], 0.2),
        Part("fiedler", ["fiedler.py", "--json", "--no-peers", *sizes, *device], 0.2),
        Part("extraction", ["extraction.py", "--json", *data, *pets, *device], 0.2, no_data),
        Part("scratch", ["tuned_scratch.py", *scratch, *device], 1.0, no_folder),
    ]
    chosen = [part for part in parts if part.name in args.parts.split(",")]
    # What is left out leaves its share to the others, and the last has all that is left.
    whole = min(sum(part.share for part in chosen), 1.0)
    shares = [part.share / whole for part in chosen[:-1]] + [1.0]
    return [part._replace(share=own) for part, own in zip(chosen, shares, strict=True)]


def run(part: Part, out: Path, seconds: float) -> dict[str, object]:
    """Runs a part for some seconds at most; gives its row."""
    if part.missing:
        return {"part": part.name, "status": f"left out: {part.missing}"}
    script, *rest = part.arguments
    command = [sys.executable, script if script == "-m" else str(HERE / script), *rest]
    if part.name == "scratch":  # it ends by itself once no more runs can be done
        command += ["--minutes", f"{max(seconds - 15, 5) / 60:.2f}"]
    started, status = time.perf_counter(), "done"
    with (out / f"{part.name}.txt").open("w", encoding="utf-8") as text:
        try:
            code = subprocess.run(
                command, check=False, cwd=HERE.parent, timeout=seconds,
                stdout=text, stderr=subprocess.STDOUT,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            status = f"stopped after {seconds:.0f} s"
        else:
            status = f"failed with {code}" if code else status
    return {
        "part": part.name,
        "status": status,
        "seconds": round(time.perf_counter() - started, 2),
    }


def main() -> int:
    """Runs all parts; 1 where one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-root", type=Path, help="holds oxford-iiit-pet/")
    parser.add_argument("--scratch", type=Path, help="a prepared folder")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="tests,fiedler,extraction,scratch")
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    # The scripts run in the folder of the repository, whatever the caller's is.
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.perf_counter() + 60 * args.minutes
    failed = False
    for part in parts_of(args):
        left = max(end - time.perf_counter(), 1.0)
        row = run(part, args.out, min(left, 60 * args.minutes * part.share))
        failed |= str(row["status"]).startswith("failed")
        print(json.dumps(row), flush=True)
        with (args.out / "parts.jsonl").open("a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

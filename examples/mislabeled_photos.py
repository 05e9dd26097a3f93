"""A folder of real photos, a tenth of them in the wrong folder, and how many of those are found.

python examples/mislabeled_photos.py --data-root data --out photos
saln labels photos
python examples/mislabeled_photos.py --out photos --check labels-photos/labels.csv
"""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from pathlib import Path

# Beside the folders of the classes, where no class is looked for.
TRUTH = "truth.csv"
FIRST = 50


def make(data_root: Path, out: Path, *, seed: int = 0, breeds: int = 10, each: int = 60) -> int:
    """Copies photos of some breeds, a tenth of them into another breed's folder.

    Args:
        data_root: Holds oxford-iiit-pet in torchvision's layout.
        out: A new folder: one sub-folder a breed, and truth.csv, which says where each belongs.
        seed: Decides which breeds and photos, and which lie wrong.
        breeds: How many.
        each: Photos of each.

    Returns:
        How many lie in the wrong folder.
    """
    source = data_root / "oxford-iiit-pet"
    photos: dict[str, list[Path]] = {}
    for split in ("trainval", "test"):
        for line in (source / "annotations" / f"{split}.txt").read_text().splitlines():
            name = line.split()[0]
            breed = name.rpartition("_")[0].replace("_", " ")
            photos.setdefault(breed, []).append(source / "images" / f"{name}.jpg")
    draw = random.Random(seed)
    chosen = sorted(draw.sample(sorted(photos), breeds))
    pairs = [(path, breed) for breed in chosen for path in draw.sample(photos[breed], each)]
    draw.shuffle(pairs)  # numbered below: a file's name shall not say where it belongs
    wrong = set(draw.sample(range(len(pairs)), len(pairs) // 10))
    rows = []
    for number, (path, breed) in enumerate(pairs):
        others = [other for other in chosen if other != breed]
        given = draw.choice(others) if number in wrong else breed
        (out / given).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, out / given / f"{number:04}.jpg")
        rows.append((f"{number:04}.jpg", breed, given))
    with (out / TRUTH).open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "true", "given"), *rows])
    return len(wrong)


def check(out: Path, labels: Path) -> tuple[int, int, int]:
    """Compares what ``saln labels`` wrote with the truth.

    Returns:
        How many of the first 50 that it lists are wrong, how many are wrong of all that it
        doubts, and how many photos lie in the wrong folder now.
    """
    with (out / TRUTH).open(newline="") as stream:
        true = {row["file"]: row["true"] for row in csv.DictReader(stream)}
    with labels.open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["probability"]]
    doubted = [row for row in rows if float(row["probability"]) < 0.5 and not row["decision"]]
    doubted.sort(key=lambda row: float(row["probability"]))
    right = [row["given"] != true[Path(row["id"]).name] for row in doubted]
    left = sum(path.parent.name != true[path.name] for path in out.glob("*/*.jpg"))
    return sum(right[:FIRST]), sum(right), left


def main() -> None:
    """Makes the folder, or checks what was found in it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("photos"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", type=Path, help="the labels.csv of the folder that --out names")
    given = parser.parse_args()
    if given.check is None:
        wrong = make(given.data_root, given.out, seed=given.seed)
        print(
            f"{given.out}: {wrong} photos lie in the wrong folder; {given.out / TRUTH} says which"
        )
        return
    first, found, left = check(given.out, given.check)
    print(f"{first} of the first {FIRST} are wrong, {found} of all that are doubted")
    print(f"{left} photos lie in the wrong folder now")


if __name__ == "__main__":
    main()

"""What the paper claims, as printed in its tables (arXiv 2412.17069, section 4)."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """One method's printed results on one data set: per cent by split, loss, and training time."""

    arm: str  # the arm that the paper's method is here
    tables: str  # where they are printed
    accuracy: tuple[float, float, float]
    loss: tuple[float, float]
    minutes: float | None  # None where the printed table could not be read


# By preset. The paper trained ResNet-18 once on a T4; it gives no number of seeds and no
# interval, and does not say what its minutes include.
CLAIMS: dict[str, tuple[Claim, ...]] = {
    "paper-oxford-pet": (
        Claim("standard", "1 to 3", (86.1, 76.49, 82.02), (0.4983, 0.6546), None),
        Claim("saln", "1 to 3, 5 to 7", (96.5, 94.02, 86.8), (0.1606, 0.2102), None),
        Claim("jest", "5 to 7", (79.59, 75.54, 87.55), (0.7309, 0.8060), None),
    ),
    "paper-cifar10": (
        Claim("saln", "13 to 16", (81.99, 84.08, 82.46), (0.5080, 0.4607), 22.66),
        Claim("jest", "13 to 16", (72.81, 76.86, 77.72), (0.7832, 0.6732), 37.68),
    ),
}

# Printed as pictures: their numbers are not in the paper's text, and none are guessed here.
UNREAD = {
    "paper-oxford-pet": "tables 4 and 8 (training time)",
    "paper-cifar10": "tables 9 to 12 (standard training)",
}

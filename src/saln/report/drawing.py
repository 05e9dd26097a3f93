"""Drawing in one clean style: SVG and PDF files, and SVG for a page in light or dark."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import math
import os
import re
import warnings
from typing import Any, NamedTuple

import numpy as np
import xxhash

from saln.report.values import Bars, Drawing, Figure, HeatMap, Intervals

# Okabe and Ito's colors, which color-blind readers can tell apart.
COLORS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#8c6d31", "#1c2330")
INK, GRID, PAPER = "#1c2330", "#d9dee8", "#fefefe"
# Drawn in these and named by the page's style, which has others for a dark screen.
_NAMES = {INK: "--ink", GRID: "--grid", PAPER: "--paper-of-figures"} | {
    color: f"--color-{number}" for number, color in enumerate(COLORS[:-1])
}


# Longer names leave no room for what is drawn.
LONGEST_NAME = 32
# More names of columns do not fit beside each other; some are left out then.
MOST_COLUMNS = 60
# What matplotlib's own font lacks, where the machine has it.
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans", "Noto Sans Arabic", "Noto Sans Hebrew",
    "Noto Sans Devanagari", "Noto Sans Thai", "WenQuanYi Zen Hei", "Arial Unicode MS",
    "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Malgun Gothic", "Segoe UI Symbol",
    "Noto Sans Symbols",
)  # fmt: skip
_STYLE: dict[str, Any] = {
    "svg.fonttype": "path",
    "pdf.fonttype": 42,  # whole TrueType fonts; journals refuse type 3
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "text.parse_math": False,  # a class may be called $x
}
# The user's own choices that are not of the look of a figure.
_NOT_LOOKS = ("backend", "interactive", "toolbar", "webagg", "tk.", "macosx", "datapath")


class Drawn(NamedTuple):
    """A figure as SVG text and as the bytes of a PDF file with its fonts inside."""

    svg: str
    pdf: bytes


def _look(arms: tuple[str, ...], arm: str) -> tuple[str, str]:
    again, number = divmod(arms.index(arm), len(COLORS))
    return COLORS[number], ("-", "--", ":")[again % 3]


def _plain(name: str) -> str:
    """A name as a label: cut where it is long, in one line, and of characters that fonts know."""
    text = " ".join(name.encode("utf-8", errors="replace").decode().split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def _lines(axes: Any, figure: Figure, arms: tuple[str, ...]) -> None:
    for curve in figure.curves:
        color, line = _look(arms, curve.arm)
        marker = "." if len(curve.x) <= 30 else ""
        axes.plot(curve.x, curve.y, line, color=color, label=curve.arm, lw=1.8, marker=marker)
        if curve.low != curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.15, lw=0)
    axes.set(xlabel=figure.x_label, ylabel=figure.y_label)
    if all(float(place).is_integer() for curve in figure.curves for place in curve.x):
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid()
    if figure.curves:
        axes.legend(frameon=False, fontsize=8)


def _bars(axes: Any, figure: Bars) -> None:
    places = np.arange(len(figure.arms))
    left = np.zeros(len(figure.arms))
    for number, (part, values) in enumerate(zip(figure.parts, figure.values, strict=True)):
        # Hatching too: seven fills are more than some eyes tell apart.
        hatch = ("", "//", "..", "\\\\", "xx", "--", "")[number % 7]
        axes.barh(
            places, values, left=left, label=part, color=COLORS[number % len(COLORS)],
            hatch=hatch, edgecolor=PAPER, linewidth=0.5,
        )  # fmt: skip
        left += np.asarray(values)
    axes.set_yticks(places, figure.arms)
    axes.invert_yaxis()
    axes.set(xlabel=figure.x_label)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.18), fontsize=8)


def _intervals(axes: Any, figure: Intervals, arms: tuple[str, ...]) -> None:
    places = np.arange(len(figure.arms))
    axes.axvline(0, color=INK, lw=1)
    for place, arm, value, low, high in zip(
        places, figure.arms, figure.values, figure.low, figure.high, strict=True
    ):
        color = _look(arms, arm)[0]
        if low is not None and high is not None:
            axes.plot([low, high], [place, place], color=color, lw=3, alpha=0.55)
        axes.plot([value], [place], "o", color=color)
    axes.set_yticks(places, figure.arms)
    axes.set_ylim(len(places) - 0.5, -0.5)
    axes.set(xlabel=figure.x_label)
    axes.grid(axis="x")


def _heat(canvas: Any, all_axes: list[Any], figure: HeatMap) -> None:
    finite = [v for p in figure.panels for row in p.values for v in row if math.isfinite(v)]
    low, high, colors = 0.0, max(finite, default=1.0), "cividis"
    if figure.center is not None:
        reach = max((abs(value - figure.center) for value in finite), default=1.0) or 1.0
        low, high, colors = figure.center - reach, figure.center + reach, "PuOr"
    for axes, panel in zip(all_axes, figure.panels, strict=True):
        values = np.asarray(panel.values, dtype=float)
        image = axes.imshow(
            values, cmap=colors, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
        )
        axes.set_title(panel.title, fontsize=9, loc="left")
        if figure.rows:
            axes.set_yticks(
                range(len(figure.rows)), [_plain(name) for name in figure.rows], fontsize=8
            )
        if figure.columns:
            size = 8 if len(figure.columns) <= 12 else 6
            places = range(0, len(figure.columns), -(-len(figure.columns) // MOST_COLUMNS))
            shown = [_plain(figure.columns[place]) for place in places]
            axes.set_xticks(places, shown, rotation=90, fontsize=size)
        if values.shape[1] <= 12 and figure.rows and figure.columns:
            for row, column in np.ndindex(*values.shape):
                if not math.isfinite(values[row, column]):
                    continue
                red, green, blue, _ = image.cmap(image.norm(values[row, column]))
                bright = 0.299 * red + 0.587 * green + 0.114 * blue
                axes.text(
                    column, row, f"{values[row, column]:.2f}", ha="center", va="center",
                    fontsize=7, color="#000000" if bright > 0.5 else "#ffffff",
                )  # fmt: skip
        axes.set_ylabel(figure.y_label)
    all_axes[-1].set_xlabel(figure.x_label)
    canvas.colorbar(image, ax=all_axes, shrink=0.8)


def _own_look(name: str) -> contextlib.AbstractContextManager[Any]:
    """One look whatever the user's settings are; ``name`` makes the SVG repeat."""
    # It refuses to be imported with a backend that it does not know; none is used here.
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        matplotlib = importlib.import_module("matplotlib")
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    from matplotlib import font_manager

    known = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans", *(font for font in _MORE_FONTS if font in known)]
    defaults = {
        setting: value
        for setting, value in matplotlib.rcParamsDefault.items()
        if not setting.startswith(_NOT_LOOKS)
    }
    # Any: matplotlib's type of the argument lists every setting by name.
    looks: Any = defaults | {"font.family": fonts, "svg.hashsalt": name} | _STYLE
    look: contextlib.AbstractContextManager[Any] = matplotlib.rc_context(looks)
    return look


def draw(figure: Drawing, arms: tuple[str, ...]) -> Drawn:
    """Draws a figure. ``arms`` fixes each arm's color across figures."""
    if isinstance(figure, Figure):
        shown = [curve.arm for curve in figure.curves]
    else:
        shown = [] if isinstance(figure, HeatMap) else list(figure.arms)
    # What is no arm of the run, in a figure from elsewhere, gets the colors behind theirs.
    arms = tuple(dict.fromkeys((*arms, *shown)))
    logger = logging.getLogger("matplotlib")
    level = logger.level
    # It talks about fonts, room and its cache. A name in a script that no font here knows is
    # drawn as boxes; the figure's data and its description have it.
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _own_look(figure.name):
                return _draw(figure, arms)
    finally:
        logger.setLevel(level)


def _draw(figure: Drawing, arms: tuple[str, ...]) -> Drawn:
    # The object interface alone: pyplot would keep every figure and pick a window system.
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    height = 4.0
    panels = len(figure.panels) if isinstance(figure, HeatMap) else 1
    if isinstance(figure, HeatMap):
        each = max(0.9, 0.26 * len(figure.panels[0].values)) if figure.rows else 1.2
        names = max((len(_plain(name)) for name in figure.columns), default=0)
        height = 1.6 + each * panels + 0.075 * max(0, names - 8)  # they stand upright
    elif not isinstance(figure, Figure):
        height = 1.4 + 0.36 * len(figure.arms) + (0.4 if isinstance(figure, Bars) else 0)
    canvas = Canvas(figsize=(6.4, height), layout="constrained", facecolor=PAPER)
    axes = list(canvas.subplots(panels, 1, squeeze=False)[:, 0])
    canvas.suptitle(figure.title, fontsize=11)
    if isinstance(figure, HeatMap):
        _heat(canvas, axes, figure)
    else:
        axes[0].spines[["top", "right"]].set_visible(False)
        if isinstance(figure, Figure):
            _lines(axes[0], figure, arms)
        elif isinstance(figure, Bars):
            _bars(axes[0], figure)
        else:
            _intervals(axes[0], figure, arms)
    text, file, dpi = io.StringIO(), io.BytesIO(), canvas.dpi
    # Not by savefig, which draws once more, to lay it out, where a drawing does so itself.
    FigureCanvasSVG(canvas).print_svg(text, metadata={"Date": None})  # type: ignore[no-untyped-call]
    canvas.set_layout_engine("none")  # it is laid out now; once is enough
    canvas.dpi = dpi  # of images inside, which an SVG file has changed
    FigureCanvasPdf(canvas).print_pdf(  # type: ignore[no-untyped-call]
        file, metadata={"CreationDate": None}
    )
    return Drawn(text.getvalue().replace(PAPER, "#ffffff"), file.getvalue())


def for_page(drawn: Drawn, name: str) -> str:
    """The SVG for inside a page: the page's colors, and names that no other figure has."""
    svg = drawn.svg[drawn.svg.index("<svg") :]  # no XML prologue inside HTML
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace("#ffffff", PAPER, 1)  # the sheet
    for color, variable in _NAMES.items():
        svg = svg.replace(color, f"var({variable})")
    # A hundredth of a point is finer than any screen; the files keep every digit.
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", svg)
    # Groups are named for people who edit the file; line breaks are for them, too.
    svg = re.sub(r"\s*\n\s*", " ", re.sub(r'<g id="[^"]*"', "<g", svg))
    # A short name: it stands some hundred times in a figure.
    short = f"f{xxhash.xxh32_hexdigest(name.encode())}"
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{short}-", svg)


def page_colors() -> dict[str, str]:
    """The page's names of colors -> those of a saved figure."""
    return {variable: color for color, variable in _NAMES.items()} | {_NAMES[PAPER]: "#ffffff"}

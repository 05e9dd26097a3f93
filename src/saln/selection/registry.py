"""Every selector by its name: ours, a line each, and those of packages that are installed.

A package adds its own by an entry point of the group ``saln.selectors``, in pyproject.toml::

    [project.entry-points."saln.selectors"]
    my-selector = "my_package:MySelector"

It is loaded when it is asked for. A selector and its hyperparameters are written as

    jest    jest:chunks=4    jest(chunks=4, variant=hard-learner)    my_package:MySelector(alpha=2)

The last form names a class by its module, whether or not its package says so.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from saln.converter import split_commas
from saln.errors import InputError
from saln.messages import shown
from saln.selection.balanced_curriculum import BalancedCurriculum
from saln.selection.cleanlab_pruned import CleanlabPruned
from saln.selection.coherence import BatchCoherence, Coherence
from saln.selection.contract import Selector
from saln.selection.curriculum import Curriculum
from saln.selection.divbs import DivBS
from saln.selection.facility_location import FacilityLocation
from saln.selection.feature_density import FeatureDensity
from saln.selection.herding import Herding
from saln.selection.hyperparameters import hyperparameters, make_selector, read_values
from saln.selection.infobatch import InfoBatch
from saln.selection.jest import JEST
from saln.selection.k_center import KCenter
from saln.selection.reducible import Reducible
from saln.selection.remembered_loss import RememberedLoss
from saln.selection.rho_loss import RHOLoss
from saln.selection.rs2 import RS2
from saln.selection.saln_selector import SALN
from saln.selection.small_loss import SmallLoss
from saln.selection.top_loss import TopLoss
from saln.selection.uniform import Uniform

GROUP = "saln.selectors"

SELECTORS: dict[str, type[Selector]] = {
    "uniform": Uniform,
    "saln": SALN,
    "jest": JEST,
    "rho-loss": RHOLoss,
    "top-loss": TopLoss,
    "infobatch": InfoBatch,
    "k-center": KCenter,
    "facility-location": FacilityLocation,
    "rs2": RS2,
    "coherence": Coherence,
    "coherence-batch": BatchCoherence,
    "balanced-curriculum": BalancedCurriculum,
    "curriculum": Curriculum,
    "remembered-loss": RememberedLoss,
    "reducible": Reducible,
    "herding": Herding,
    "small-loss": SmallLoss,
    "cleanlab-pruned": CleanlabPruned,
    "divbs": DivBS,
    "feature-density": FeatureDensity,
}


class InstalledSelector(NamedTuple):
    """An entry point of the group ``saln.selectors``."""

    name: str  # What the selector is called by
    package: str  # Whose it is
    place: str  # ``module:Class``

    def load(self) -> type[Selector]:
        """The class; InputError where it cannot be imported, or is no selector."""
        who = f"selector {self.name} of the package {self.package}"
        return _loaded(self.place, who, f"update or uninstall {self.package}")


def installed_selectors() -> dict[str, InstalledSelector]:
    """Name -> the selectors of installed packages; none of them is loaded.

    Our own names are ours, whatever a package says; the first of two of one name counts.
    """
    found: dict[str, InstalledSelector] = {}
    for entry in metadata.entry_points(group=GROUP):
        package = "an unknown package" if entry.dist is None else entry.dist.name
        if entry.name not in SELECTORS and re.fullmatch(r"[^\W\d][\w.-]*", entry.name):
            # The first on the path, as Python itself has it for modules of one name.
            found.setdefault(entry.name, InstalledSelector(entry.name, package, entry.value))
    return found


def _loaded(place: str, who: str, cure: str) -> type[Selector]:
    """The class at ``module:Class``, which messages call ``who``."""
    module, _, path = place.partition(":")
    try:
        found: Any = importlib.import_module(module.strip())
        for name in path.split("[")[0].strip().split("."):  # extras stand in brackets
            found = getattr(found, name)
    except (Exception, SystemExit) as error:  # whatever the import of other code raises
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{who} cannot be loaded ({why}); {cure}") from error
    if not is_selector(found):
        raise InputError(f"{who} is no class of saln.Selector with its method choose; {cure}")
    kind: type[Selector] = found
    return kind


def is_selector(found: Any) -> bool:
    """Whether something is a class of selectors that can be made."""
    return isinstance(found, type) and issubclass(found, Selector) and not inspect.isabstract(found)


def split_selector(text: str, what: str = "selector") -> tuple[str, dict[str, str]]:
    """Parts ``NAME``, ``NAME:KEY=VALUE``, ``NAME(KEY=VALUE, ...)``: the name, and text by key.

    NAME may be MODULE:CLASS. Raises InputError for other texts, which are no ``what``.
    """
    # Brackets before any "=": behind one they belong to a value, such as jest:layers=(1,2).
    call = re.fullmatch(r"([^(=]*)\((.*)\)", text, re.DOTALL)
    if call:
        name, parts = call[1].strip(), [part for part in split_commas(call[2]) if part]
    else:
        # The words before the first "=" are the name, as module:Class has a colon of its own.
        words = text.split(":")
        values = next((at for at, word in enumerate(words) if "=" in word), len(words))
        name, parts = ":".join(words[:values]), words[values:]
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not (key.isidentifier() and equals and value) or key in found:
            name = ""
        found[key] = value
    if not re.fullmatch(r"[^\W\d][\w.-]*(:[^\W\d][\w.]*)?", name):
        raise InputError(
            f"{shown(text)} is no {what}; write a NAME, NAME:KEY=VALUE, or with several "
            "hyperparameters NAME(KEY=VALUE, KEY=VALUE), each once"
        )
    return name, found


def find_selector(name: str, also: Sequence[str] = ()) -> type[Selector]:
    """The class of a name: ours, an installed package's, or ``module:Class``; else InputError.

    The message of an unknown one lists ``also`` too.
    """
    if name in SELECTORS:
        return SELECTORS[name]
    installed = installed_selectors()
    if name in installed:
        return installed[name].load()
    place = name if ":" in name else ":".join(name.rsplit(".", 1))
    if ":" in place:
        folder, module = str(Path.cwd()), place.partition(":")[0].partition(".")[0]
        # As `python -m saln` has it. A script has its own folder there, not where it is run.
        if folder not in sys.path and (Path(module).is_dir() or Path(f"{module}.py").exists()):
            sys.path.append(folder)
        return _loaded(place, place, "give module:Class of a module that Python finds")
    # The closest of all names: a slip of the pen is the usual reason to be here.
    known = [*also, *SELECTORS, *installed]
    near = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise InputError(
        f"{shown(name)} is not allowed; give one of {', '.join(known)}, or module:Class{hint}"
    )


def name_of(kind: type[Selector]) -> str:
    """What a class is called by: its registered name, else ``module:Class``."""
    ours = {ours: name for name, ours in SELECTORS.items()}
    if kind in ours:
        return ours[kind]
    # Only packages that the class may come from are loaded: others may take seconds, or fail.
    top = kind.__module__.partition(".")[0]
    for name, entry in installed_selectors().items():
        if entry.place.partition(".")[0].partition(":")[0] == top:
            try:
                if entry.load() is kind:
                    return name
            except InputError:  # a broken neighbor of the class
                continue
    return f"{kind.__module__}:{kind.__qualname__}"


def read_selector(text: str) -> Selector:
    """The selector that a text names, see the top of this module; else InputError."""
    name, texts = split_selector(text)
    kind = find_selector(name)
    return make_selector(kind, name, read_values(kind, name, texts))


def described(kind: type[Selector]) -> str:
    """What ``saln list`` says of a kind of selector: its summary, needs and hyperparameters."""
    needs = ", ".join(sorted(kind.requires)) or "nothing"
    when = "before" if kind.chooses_before_loading() else "after"
    lines = [kind.summary, f"requires {needs}; chooses {when} loading"]
    return "\n".join([*lines, *map(str, hyperparameters(kind))])


def listed_selectors() -> Iterator[tuple[str, str, str]]:
    """Name, description and package ("" for ours) of every selector, installed ones among them.

    One that cannot be loaded has the reason in the place of its description.
    """
    for name, kind in SELECTORS.items():
        yield name, described(kind), ""
    for name, entry in installed_selectors().items():
        try:
            yield name, described(entry.load()), entry.package
        except InputError as error:
            yield name, str(error), ""
        except Exception as error:  # a class may say odd things of itself; it hides no other
            yield name, f"of the package {entry.package}, cannot be described: {error!r}", ""

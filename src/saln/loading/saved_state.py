"""What a saved position holds of the settings, and where they must agree to go on from it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from saln.errors import InputError
from saln.selection.contract import Selector

if TYPE_CHECKING:
    from saln.loading.batch_choice import ChoiceBeforeLoading


def described(selector: Selector) -> str:
    """A selector with its hyperparameters, the same in every process."""
    # A hyperparameter without a repr of its own is shown by its address.
    return re.sub(r" at 0x[0-9a-fA-F]+", "", selector._stored())


def state_of(choice: ChoiceBeforeLoading, epoch: int) -> dict[str, Any]:
    """What the states of all that chooses before loading hold."""
    return {
        "epoch": epoch,
        "seed": choice.seed,
        "batch_size": choice.batch_size,
        "candidates": choice.candidates_of(epoch),
        "selector": described(choice.selector),
        "selector_state": choice.selector.state_dict(),
    }


def refuse_other_settings(
    state: Mapping[str, Any], own: Mapping[str, Any], keys: Iterable[str], what: str
) -> None:
    """Raises InputError where a state has other keys than ``own``, or other values at ``keys``."""
    if not isinstance(state, Mapping) or set(own) != set(state):
        held = ", ".join(sorted(map(str, state))) if isinstance(state, Mapping) else repr(state)
        raise InputError(
            f"the state holds {held or 'nothing'}; expected {', '.join(sorted(own))}: "
            f"give what {what}.state_dict() gave"
        )
    # Only what decides the batches: the number of ranks, for one, may differ.
    for key in keys:
        same = own[key] == state[key]
        if key == "selector":  # older states held the name of its class alone
            same = same or state[key] == str(own[key]).partition("(")[0]
        if not same:
            raise InputError(
                f"the state was saved with {key} {state[key]}, here it is {own[key]}; "
                "go on with the settings that it was saved with"
            )


def warn_of_the_middle(requested: int, epoch: int) -> None:
    """Warns where another epoch was set than the one in whose middle a loaded state is."""
    warnings.warn(
        f"set_epoch({requested}) was called, but the loaded state is in the middle of epoch "
        f"{epoch}: that epoch is finished first; set the epoch that the state is of",
        UserWarning,
        stacklevel=3,
    )

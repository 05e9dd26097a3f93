"""The exceptions that SALN raises on purpose.

::

    SalnError
    ├── InputError (ValueError)       a value the caller gave is not allowed          exit 2
    ├── DataError                     data on disk cannot be read                     exit 1
    ├── WeightsError                  pretrained weights cannot be had                exit 1
    ├── MissingExtraError             an optional package is not installed            exit 1
    ├── ConvergenceError              an eigensolver did not reach the right answer   exit 1
    └── TrainingError                 training cannot go on (loss not finite)         exit 1

and the warnings: ::

    UserWarning
    └── NotJointWarning               scores that make a joint selector an independent one

Every message gives the value, what is allowed and the cure. The command line
prints the message alone and ends with ``exit_code``.
"""

from __future__ import annotations

__all__ = [
    "ConvergenceError",
    "DataError",
    "InputError",
    "MissingExtraError",
    "NotJointWarning",
    "SalnError",
    "TrainingError",
    "WeightsError",
]


class SalnError(Exception):
    """The base of every error that SALN raises on purpose."""

    exit_code = 1


class InputError(SalnError, ValueError):
    """A value that the caller gave is not allowed."""

    exit_code = 2


class DataError(SalnError):
    """Data on disk is missing, broken or not what it says it is."""


class WeightsError(SalnError):
    """Pretrained weights cannot be downloaded, read or matched to the network."""


class MissingExtraError(SalnError):
    """An optional package is needed for what was asked and is not installed."""


class ConvergenceError(SalnError):
    """An eigensolver ended without an answer that it can vouch for."""


class TrainingError(SalnError):
    """Training cannot go on, for example because the loss is not finite."""


class NotJointWarning(UserWarning):
    """The scores of a joint selector hold nothing about pairs: its choice is not joint."""

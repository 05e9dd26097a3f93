"""The command line: ``saln compare | features | select | report | list``."""

from saln.cli.main import main

__all__ = ["main"]

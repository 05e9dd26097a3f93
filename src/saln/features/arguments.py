"""See :mod:`saln.data.arguments`, where these are."""

from saln.data.arguments import as_array, as_labels, as_path, as_whole

__all__ = ["as_array", "as_labels", "as_path", "as_whole"]

"""What figures look like is the business of tests/report/."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def without_figures(quick_figures):
    """All comparisons of these tests."""

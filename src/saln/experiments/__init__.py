"""Comparisons: what to run, running it, and what the rows say."""

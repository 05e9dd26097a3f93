"""SALN: choose, from every batch of candidates, the few examples worth a gradient."""

__version__ = "0.1.0"

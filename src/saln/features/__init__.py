"""Frozen backbones and the rows that they make of images."""

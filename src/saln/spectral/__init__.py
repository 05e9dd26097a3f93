"""The similarity graph of a candidate batch and its Fiedler vector."""

from saln.spectral.fiedler import FiedlerResult, fiedler
from saln.spectral.graph import SimilarityGraph, similarity_graph

__all__ = ["FiedlerResult", "SimilarityGraph", "fiedler", "similarity_graph"]

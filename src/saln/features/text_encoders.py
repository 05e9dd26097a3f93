"""Texts to rows: by the words alone, or by an encoder of Hugging Face's ``transformers``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from saln.data.arguments import as_whole
from saln.data.name_registry import NameRegistry, RegisteredName
from saln.errors import InputError
from saln.features.extraction import Meter, Progress
from saln.features.extraction_options import ExtractionSettings

Rows = npt.NDArray[np.float32]
# Features of a text, where its words are all there is. More tell more classes apart, and cost
# more in everything that comes after.
TFIDF_WIDTH = 512
# Terms of each kind that are kept: the commonest.
_TERMS = 50_000
# What a term is counted as: its hash, so that a million texts need no more memory for names.
_HASHES = 2**20


class TextEncoder(Protocol):
    """Texts to rows."""

    name: str  # As it was asked for
    identity: str  # A hash of all that the rows depend on beside the texts
    # Whether a text's row depends on that text alone, so that it can be kept by what the text
    # says; else on all texts together.
    by_itself: bool

    def encode(
        self, texts: Sequence[str], progress: Callable[[Progress], None] | None = None
    ) -> Rows:
        """float32, (n, d), finite; ``progress`` is called as an extraction's is."""


class EncoderRequest(NamedTuple):
    """What a builder of an encoder is called with: see :func:`text_features`."""

    name: str
    argument: str
    device: torch.device
    batch_size: int | None
    seed: int


TEXT_ENCODERS: NameRegistry[RegisteredName] = NameRegistry(
    "text encoder", "saln.features.text_encoders", "saln.text_encoders", RegisteredName
)


def text_encoder(
    name: str = "tfidf",
    *,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> TextEncoder:
    """Finds, and loads, an encoder by its name; arguments and errors as :func:`text_features`."""
    settings = ExtractionSettings(device=device, batch_size=batch_size)
    seed = as_whole(seed, "seed", 0, 2**32 - 1)
    where = settings.device_for("text")
    kind, argument = TEXT_ENCODERS.find(name)
    request = EncoderRequest(name, argument, where, settings.batch_size, seed)
    encoder: TextEncoder = kind.make(request)
    return encoder


def text_features(
    texts: Sequence[str],
    encoder: str = "tfidf",
    *,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Callable[[Progress], None] | None = None,
) -> Rows:
    """Gives the features of every text.

    Args:
        texts: n texts; empty ones get a row of zeros by ``"tfidf"``.
        encoder: ``"tfidf"``: words, pairs of words and pieces of words, weighted by how rare they
            are, in at most 512 dimensions; nothing to download, and the rows depend on all texts
            together. ``"hf:MODEL"``: a model of the Hugging Face hub, or a folder that holds one;
            the mean of what it gives for a text's tokens, or its first one's where the model says
            so (``1_Pooling``).
        device: Where an encoder with weights runs; when not given a GPU where there is one.
        batch_size: Texts a forward pass; 32 when not given.
        seed: Of the truncated singular value decomposition of ``"tfidf"``.
        progress: Called after every batch, and once before the first.

    Returns:
        float32, (n, d), finite.

    Raises:
        InputError: No texts, something else among them, an unknown encoder, or a value that is
            not allowed.
        WeightsError: The model cannot be had.
        MissingExtraError: ``hf:`` without the extra ``transformers``.
    """
    check_texts(texts)
    found = text_encoder(encoder, device=device, batch_size=batch_size, seed=seed)
    return found.encode(texts, progress)


def check_texts(texts: Sequence[str]) -> None:
    """Refuses what is not a list of texts; the InputError names the first that is none."""
    if isinstance(texts, str) or not len(texts):
        raise InputError("there are no texts to encode; give a list of at least one")
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {row} is {type(text).__name__}, not text; give a list of str")


@TEXT_ENCODERS.register(
    "tfidf", "words, pairs of words and pieces of words (TF-IDF), in 512 dimensions; no weights"
)
def _tfidf(request: EncoderRequest) -> TextEncoder:
    return TfidfEncoder(request.seed)


@TEXT_ENCODERS.register(
    "hf:",
    "a text encoder of the Hugging Face hub, or of a folder",
    argument="MODEL",
    needs="extra 'transformers'",
)
def _hf(request: EncoderRequest) -> TextEncoder:
    from saln.features.token_encoder import TokenEncoder

    return TokenEncoder(request)


class TfidfEncoder:
    """Latent semantic analysis: counts of terms, TF-IDF, truncated singular value decomposition.

    The rows have length 1; those of texts that share no term with another, or have none, are 0.
    """

    name = "tfidf"
    by_itself = False

    def __init__(self, seed: int = 0, width: int = TFIDF_WIDTH) -> None:
        self.seed, self.width = seed, width
        settings = f"tfidf 1 {seed} {width} {_TERMS}"
        self.identity = hashlib.blake2b(settings.encode(), digest_size=16).hexdigest()

    def encode(
        self, texts: Sequence[str], progress: Callable[[Progress], None] | None = None
    ) -> Rows:
        """float32, (n, at most ``width``); see :func:`text_features`."""
        from scipy.sparse import hstack
        from sklearn.utils.extmath import randomized_svd

        check_texts(texts)
        meter = Meter(len(texts), 0, progress)
        meter.advance(0)
        # Pieces of words: for other forms of a word, typing errors, languages without spaces.
        # From one letter on, as one letter is a word there.
        counts = hstack([_weighted(texts, "word", (1, 2)), _weighted(texts, "char_wb", (2, 4))])
        rank = min(self.width, *counts.shape)
        if not counts.nnz:
            meter.advance(len(texts))
            return np.zeros((len(texts), max(rank, 1)), np.float32)
        left, values, _ = randomized_svd(
            counts.tocsr(), rank, n_iter=4, random_state=self.seed, flip_sign=True
        )
        rows = left * values
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        # What is left of rounding is no direction.
        rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 1e-6)
        meter.advance(len(texts))
        return np.ascontiguousarray(rows, dtype=np.float32)


def _weighted(texts: Sequence[str], analyzer: str, lengths: tuple[int, int]) -> Any:
    """TF-IDF of the commonest terms of a kind, float64, (n, terms), rows of length 1 or 0."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counter = HashingVectorizer(
        analyzer=analyzer,
        ngram_range=lengths,
        # Words of one letter, too: scikit-learn's own pattern leaves out "I", and "猫".
        token_pattern=r"(?u)\b\w+\b" if analyzer == "word" else None,
        n_features=_HASHES,
        alternate_sign=False,
        norm=None,
    )
    counts = counter.transform(texts)
    texts_with = np.bincount(counts.indices, minlength=_HASHES)
    # A term of one text says nothing of any other.
    shared = np.flatnonzero(texts_with >= 2)
    if len(shared) > _TERMS:
        shared = np.sort(shared[np.argsort(-texts_with[shared], kind="stable")[:_TERMS]])
    if not len(shared):
        return counts[:, :1] * 0.0
    return TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, shared])

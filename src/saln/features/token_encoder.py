"""Text encoders of ``transformers``: the mean of what a model gives for a text's tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from saln.errors import DataError, WeightsError
from saln.features.backbones import hash_of_weights
from saln.features.extraction import Meter, Progress
from saln.features.extraction_job import ready
from saln.features.hub_loading import import_transformers, load_from_hub, load_weights
from saln.features.text_encoders import EncoderRequest, check_texts
from saln.messages import Placeholder, parameter
from saln.randomness import seeded_globally

_BATCH_SIZE = 32
# Of a text the first tokens are read: what is longer costs the square of its length.
_MOST_TOKENS = 512
# Where folders of the library sentence-transformers say how tokens become a row.
_POOLING = "1_Pooling/config.json"


class TokenEncoder:
    """``hf:MODEL``, as :class:`~saln.features.text_encoders.TextEncoder`.

    WeightsError where it cannot be had, or is no encoder of text.
    """

    by_itself = True

    def __init__(self, request: EncoderRequest) -> None:
        self.name, self.device = request.name, request.device
        self.batch_size = request.batch_size or _BATCH_SIZE
        transformers = import_transformers(request.name)
        name, model = request.name, request.argument
        self.tokenizer, self.first_token = load_from_hub(_load_tokenizer, model, name)
        # Weights that are not in the file are drawn: refused below, but for heads without a use.
        with seeded_globally(0, "text encoder"):
            module, facts = load_weights(transformers.AutoModel, model, name)
        config = module.config
        # Of an encoder and a decoder, the encoder may have been published alone.
        without_use = ("decoder.",) if config.is_encoder_decoder else ()
        lacking = [
            key
            for key in facts["missing_keys"]
            if "pooler" not in key and not key.startswith(without_use)
        ]
        if lacking:
            raise WeightsError(
                f"{name} lacks {len(lacking)} of its weights, such as {min(lacking)}; give a model "
                "that was written by save_pretrained"
            )
        # Of two towers that of texts; of an encoder and a decoder the encoder.
        if hasattr(module, "text_model"):
            module, config = module.text_model, config.get_text_config()
        elif config.is_encoder_decoder:
            module = module.get_encoder()
        self.module: Any = module.requires_grad_(False)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token or self.tokenizer.unk_token
        self.tokenizer.padding_side = "right"
        self.longest = _longest(self.tokenizer, config)
        facts_of_rows = f"{'first' if self.first_token else 'mean'} of {self.longest} tokens"
        digest = hashlib.blake2b(facts_of_rows.encode(), digest_size=16)
        digest.update(_vocabulary(self.tokenizer))
        digest.update(hash_of_weights(self.module).encode())
        self.identity = digest.hexdigest()

    def encode(
        self, texts: Sequence[str], progress: Callable[[Progress], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """float32, (n, d); see :func:`saln.features.text_features`."""
        check_texts(texts)
        meter = Meter(len(texts), 0, progress)
        meter.advance(0)
        # Texts of like length together: little is padded. The longest first, so that what does
        # not fit into memory says so at once.
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        rows: npt.NDArray[np.float32] | None = None
        with ready(self.module, self.device):
            for start in range(0, len(order), self.batch_size):
                part = order[start : start + self.batch_size]
                found = self._batch([texts[row] for row in part]).float().cpu().numpy()
                if rows is None:
                    rows = np.empty((len(texts), found.shape[1]), dtype=np.float32)
                rows[part] = found
                meter.advance(len(part))
        assert rows is not None  # there is at least one text
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise DataError(
                f"the features of text {int(np.argmin(finite))} by {self.name} hold NaN or "
                f"infinity; give another model with {parameter('encoder', Placeholder('hf:MODEL'))}"
            )
        return rows

    def _batch(self, texts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        ).to(self.device)
        # A text without any token, by a tokenizer that adds none.
        if tokens["input_ids"].shape[1] == 0:
            tokens = self.tokenizer(
                [self.tokenizer.pad_token] * len(texts), return_tensors="pt"
            ).to(self.device)
        states = self.module(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).last_hidden_state
        if self.first_token:
            first: Tensor = states[:, 0]
            return first
        mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * mask).sum(1) / mask.sum(1).clamp(min=1)
        return mean


def _longest(tokenizer: Any, config: Any) -> int:
    """How many tokens of a text are read."""
    known = getattr(config, "max_position_embeddings", None) or _MOST_TOKENS
    # RoBERTa counts positions from behind the padding token's number.
    if "roberta" in str(config.model_type):
        known -= (config.pad_token_id or 0) + 1
    return int(min(tokenizer.model_max_length, known, _MOST_TOKENS))


def _vocabulary(tokenizer: Any) -> bytes:
    """What the tokenizer does, as far as it says so."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return str(backend.to_str()).encode()
    return json.dumps(sorted(tokenizer.get_vocab().items())).encode()


def _load_tokenizer(source: str, *, local_files_only: bool) -> tuple[Any, bool]:
    """A tokenizer, and whether the first token stands for a text in the place of the mean."""
    from transformers import AutoTokenizer
    from transformers.utils import hub

    tokenizer = AutoTokenizer.from_pretrained(
        source, local_files_only=local_files_only, trust_remote_code=False
    )
    find: Any = hub.cached_file
    file = find(
        source,
        _POOLING,
        local_files_only=local_files_only,
        _raise_exceptions_for_missing_entries=False,
    )
    facts = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    return tokenizer, bool(facts.get("pooling_mode_cls_token"))

"""Whole words, for policies trained from scratch on a closed set of sentences. numpy only: a bundle carries it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vla.errors import BadConfig, UnknownInstruction

_WORD = re.compile(r"[a-z0-9']+")
_MAX_CHARACTERS = 2000


@dataclass(frozen=True)
class WordTokenizer:
    """One id a word; 0 is padding. Case and punctuation do not matter; an unknown word is an error, not a guess."""

    words: tuple[str, ...]
    max_length: int

    @classmethod
    def of(cls, sentences: Iterable[str]) -> Self:
        """The vocabulary of a set of sentences, long enough for the longest.

        Raises:
            BadConfig: no words at all.
        """
        split = [_WORD.findall(s.lower()) for s in sentences]
        words = sorted({w for s in split for w in s})
        if not words:
            raise BadConfig("no instruction has any words; a language-conditioned policy needs the `task` field")
        return cls(tuple(words), max(len(s) for s in split))

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, padding included."""
        return len(self.words) + 1

    def encode(self, sentence: str) -> npt.NDArray[np.int64]:
        """(max_length,) ids.

        Raises:
            UnknownInstruction: no words, unknown words (named), or more words than any training sentence had.
        """
        found = _WORD.findall(sentence.lower()) if len(sentence) <= _MAX_CHARACTERS else []
        ids = {w: i for i, w in enumerate(self.words, start=1)}
        unknown = sorted({w for w in found if w not in ids})
        if unknown:
            raise UnknownInstruction(
                f"instruction {sentence!r}: the policy was never trained on {unknown}; it knows {', '.join(self.words)}"
            )
        if not 0 < len(found) <= self.max_length:
            raise UnknownInstruction(
                f"instruction {sentence[:80]!r} has {len(found)} words; the policy takes 1 to {self.max_length}"
            )
        out = np.zeros(self.max_length, np.int64)
        out[: len(found)] = [ids[w] for w in found]
        return out

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"type": "words", "words": list(self.words), "max_length": self.max_length}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Rebuild from untrusted JSON. Raises BadConfig."""
        try:
            words, length = tuple(data["words"]), int(data["max_length"])
        except (TypeError, KeyError, ValueError) as error:
            raise BadConfig(f"not a word tokenizer: {error}") from error
        if not all(isinstance(w, str) and _WORD.fullmatch(w) for w in words) or len(set(words)) != len(words):
            raise BadConfig("not a word tokenizer: words must be unique and lower case")
        if not words or not 0 < length <= 512:
            raise BadConfig(f"not a word tokenizer: {len(words)} words, max_length {length}")
        return cls(words, length)

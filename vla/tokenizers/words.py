"""Whole words, for policies trained from scratch on a closed set of sentences. numpy only: a bundle carries it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from vla.errors import BadConfig, UnknownInstruction

_WORD = re.compile(r"(?:[^\W_]|')+")  # letters of any script: a word we cannot read is unknown, not punctuation
_MAX_CHARACTERS = 2000
MAX_WORDS = 64
"""The longest instruction; backbones have this many positions."""


@dataclass(frozen=True)
class WordTokenizer:
    """One id a word; 0 is padding. Case and punctuation do not matter; an unknown word is an error, not a guess."""

    words: tuple[str, ...]
    max_length: int

    @classmethod
    def of(cls, sentences: Iterable[str]) -> Self:
        """The vocabulary of a set of sentences, long enough for the longest.

        Raises:
            BadConfig: no words at all, or a sentence of more than MAX_WORDS.
        """
        split = [_WORD.findall(s.lower()) for s in sentences]
        words = sorted({w for s in split for w in s})
        if not words:
            raise BadConfig("no instruction has any words; a language-conditioned policy needs the `task` field")
        longest = max(split, key=len)
        if len(longest) > MAX_WORDS:
            raise BadConfig(
                f"instruction {' '.join(longest[:8])!r}... has {len(longest)} words; {MAX_WORDS} are the most"
            )
        return cls(tuple(words), len(longest))

    @property
    def vocabulary_size(self) -> int:
        """Number of ids, padding included."""
        return len(self.words) + 1

    def encode(self, sentence: str) -> npt.NDArray[np.int64]:
        """(max_length,) ids.

        Raises:
            UnknownInstruction: no words, unknown words (named), or more words than any training sentence had.
        """
        if len(sentence) > _MAX_CHARACTERS:
            raise UnknownInstruction(
                f"instruction {sentence[:80]!r}... has {len(sentence)} characters; {_MAX_CHARACTERS} are the most"
            )
        found = _WORD.findall(sentence.lower())
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
            kind, words, length = data["type"], data["words"], data["max_length"]
        except (TypeError, KeyError) as error:
            raise BadConfig(f"not a word tokenizer: {error}") from error
        if kind != "words" or not isinstance(words, list):
            raise BadConfig(f"not a word tokenizer: type {kind!r}, words of type {type(words).__name__}")
        if not all(isinstance(w, str) and _WORD.fullmatch(w) and w == w.lower() for w in words):
            raise BadConfig("not a word tokenizer: words must be lower case, without spaces or punctuation")
        if not words or len(set(words)) != len(words):
            raise BadConfig("not a word tokenizer: there must be words, each of them once")
        if type(length) is not int or not 0 < length <= MAX_WORDS:
            raise BadConfig(f"not a word tokenizer: max_length {length!r} is not within 1 and {MAX_WORDS}")
        return cls(tuple(words), length)

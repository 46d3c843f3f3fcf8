"""Instructions become the ids the policy was trained on, or an error that names what it does not know."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla.errors import BadConfig, UnknownInstruction
from vla.tokenizers.words import MAX_WORDS, WordTokenizer

SENTENCES = ["push the red cube left", "pick up the blue cube", "don't stack 2 cubes"]
TOKENIZER = WordTokenizer.of(SENTENCES)


def words_of(tokenizer: WordTokenizer, sentence: str) -> list[str]:
    """There and back: what the ids stand for."""
    return [tokenizer.words[i - 1] for i in tokenizer.encode(sentence) if i]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_sentence_it_was_made_from_comes_back(sentence: str) -> None:
    ids = TOKENIZER.encode(sentence)
    assert words_of(TOKENIZER, sentence) == sentence.split()
    assert ids.shape == (TOKENIZER.max_length,) == (5,)
    assert ids.dtype == np.int64
    assert ids.max() < TOKENIZER.vocabulary_size
    assert (ids[len(sentence.split()) :] == 0).all(), "padding is 0, and no word is"


def test_case_punctuation_and_spaces_do_not_matter() -> None:
    plain = TOKENIZER.encode("push the red cube left")
    for spelling in ("Push the red cube LEFT.", "  push -- the\tred\ncube, left!  ", "push_the_red_cube_left"):
        np.testing.assert_array_equal(TOKENIZER.encode(spelling), plain)


def test_all_unknown_words_are_named_beside_those_it_knows() -> None:
    with pytest.raises(UnknownInstruction, match=r"never trained on \['green', 'pyramid'\]; it knows 2, blue, cube"):
        TOKENIZER.encode("pick up the green pyramid")


@pytest.mark.parametrize("sentence", ["ne pas push the red cube left", "不要 push the red cube", "не push the cube"])
def test_words_of_another_language_are_not_taken_for_punctuation(sentence: str) -> None:
    """Left out in silence, the one word that says "do not" would be."""
    with pytest.raises(UnknownInstruction, match="never trained on"):
        TOKENIZER.encode(sentence)


@pytest.mark.parametrize("sentence", ["", "   ", "?!"])
def test_no_words_are_no_instruction(sentence: str) -> None:
    with pytest.raises(UnknownInstruction, match="has 0 words; the policy takes 1 to 5"):
        TOKENIZER.encode(sentence)


def test_a_longer_sentence_than_any_it_was_trained_on_is_refused() -> None:
    with pytest.raises(UnknownInstruction, match="has 6 words; the policy takes 1 to 5"):
        TOKENIZER.encode("push the red cube left left")
    with pytest.raises(UnknownInstruction, match="has 40000 characters"):
        TOKENIZER.encode("push " * 8000)


def test_a_vocabulary_needs_words_and_sentences_short_enough_to_learn() -> None:
    for sentences in ([], ["", "!"]):
        with pytest.raises(BadConfig, match="no instruction has any words"):
            WordTokenizer.of(sentences)
    assert WordTokenizer.of(["very " * MAX_WORDS]).max_length == MAX_WORDS
    with pytest.raises(BadConfig, match=f"'very very .* has {MAX_WORDS + 1} words"):
        WordTokenizer.of(["very " * (MAX_WORDS + 1)])


HAS_WORDS = st.text(max_size=60).filter(lambda s: any(c.isalnum() for c in s.lower()))


@given(st.lists(HAS_WORDS, min_size=1, max_size=6))
def test_whatever_people_write_survives_json_and_encodes_alike(sentences: list[str]) -> None:
    made = WordTokenizer.of(sentences)
    again = WordTokenizer.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    for sentence in sentences:
        assert words_of(again, sentence) == words_of(made, sentence.lower()) != []


GOOD: dict[str, Any] = {"type": "words", "words": ["a", "b"], "max_length": 3}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "words",
        {},
        {"words": ["a"], "max_length": 3},
        GOOD | {"type": "bpe"},
        GOOD | {"words": []},
        GOOD | {"words": "ab"},
        GOOD | {"words": {"a": 1}},
        GOOD | {"words": ["a", "a"]},
        GOOD | {"words": ["a", "B"]},
        GOOD | {"words": ["a b"]},
        GOOD | {"words": ["a", ""]},
        GOOD | {"words": ["a", 1]},
        GOOD | {"words": [["a"]]},
        GOOD | {"max_length": 0},
        GOOD | {"max_length": -1},
        GOOD | {"max_length": 10**9},
        GOOD | {"max_length": "3"},
        GOOD | {"max_length": 2.5},
        GOOD | {"max_length": True},
        GOOD | {"max_length": float("inf")},
        GOOD | {"max_length": None},
    ],
)
def test_json_from_elsewhere_is_taken_whole_or_refused(data: Any) -> None:
    with pytest.raises(BadConfig, match="not a word tokenizer"):
        WordTokenizer.from_json(data)

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.embedding.tokens import BATCH_TOKENS, Tokenizer, batches, readable
from tests.embedding import small_model as small

CLS, SEP, UNK = (small.WORDS.index(name) for name in ("[CLS]", "[SEP]", "[UNK]"))


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    (tmp_path / "tokenizer.json").write_bytes(small.tokenizer_bytes())
    return Tokenizer(tmp_path / "tokenizer.json")


def test_no_text_is_padded_or_cut_as_the_published_file_says(tokenizer: Tokenizer) -> None:
    short, long = tokenizer.token_numbers(["ab", "a " * 200])
    assert short == [CLS, small.WORDS.index("a"), small.WORDS.index("##b"), SEP]
    assert len(long) == 202


def test_a_text_is_cut_to_256_tokens(tokenizer: Tokenizer) -> None:
    (numbers,) = tokenizer.token_numbers(["a " * 1_000])
    assert len(numbers) == 256
    assert (numbers[0], numbers[-1]) == (CLS, SEP)


def test_what_no_tokenizer_reads_is_left_out_or_unknown(tokenizer: Tokenizer) -> None:
    empty, nul, half, emoji = tokenizer.token_numbers(["", "\0", "\ud83d", "😀"])
    assert empty == nul == half == [CLS, SEP]
    assert emoji == [CLS, UNK, SEP]


@given(st.text(st.characters(exclude_categories=())))
def test_readable_text_has_a_utf_8_form_and_is_else_unchanged(text: str) -> None:
    read = readable(text, 50)
    read.encode()
    assert len(read) <= 50
    try:
        text.encode()
    except UnicodeEncodeError:
        pass
    else:
        assert read == text[:50]


def test_a_file_that_is_no_tokenizer_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(ValueError, match=r"^tokenizer\.json: "):
        Tokenizer(tmp_path / "tokenizer.json")


@given(st.lists(st.integers(1, 256), max_size=60))
def test_batches_hold_every_sequence_once_within_their_bound(lengths: list[int]) -> None:
    sequences = [[place + 1] * length for place, length in enumerate(lengths)]
    seen: list[int] = []
    longest_so_far = 0
    for places, inputs in batches(sequences):
        numbers, mask = inputs["input_ids"], inputs["attention_mask"]
        assert numbers.shape == mask.shape
        assert numbers.dtype == mask.dtype == np.int32
        assert numbers.size <= BATCH_TOKENS or len(places) == 1
        for row, place in enumerate(places):
            assert numbers[row].tolist() == sequences[place] + [0] * (numbers.shape[1] - lengths[place])
            assert mask[row].sum() == lengths[place]
        assert numbers.shape[1] >= longest_so_far
        longest_so_far = numbers.shape[1]
        seen += places
    assert sorted(seen) == list(range(len(lengths)))

"""Texts as token numbers, put together into batches of about equal length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dualmem_mcp.embedding import minilm
from dualmem_mcp.model.half_pairs import has_half_pair

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHARACTERS_PER_TOKEN: Final = 16
"""Texts are cut before they are read, to this for each token that the model takes: a token of English has 4 to 5
characters with its space, so that what lies behind does not reach the model anyway, long runs of spaces apart.
100 KB then cost what 4 KB do."""

BATCH_TOKENS: Final = 512
"""Padded tokens a batch: larger ones are no faster, since their activations leave the processor's second cache."""


class Tokenizer:
    """Turns texts into token numbers, at most 256 each."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError if the file is no tokenizer."""
        from tokenizers import Tokenizer as WordPieces  # noqa: PLC0415

        try:
            self._pieces = WordPieces.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises Exception itself, with the reason as text
            raise ValueError(f"{path.name}: {error}") from error
        self._pieces.enable_truncation(minilm.MAX_TOKENS)
        self._pieces.no_padding()  # the published file pads to 128

    def token_numbers(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, [CLS] first and [SEP] last."""
        limit = CHARACTERS_PER_TOKEN * minilm.MAX_TOKENS
        return [
            encoding.ids for encoding in self._pieces.encode_batch_fast([readable(text, limit) for text in texts])
        ]


def readable(text: str, max_characters: int) -> str:
    """The beginning of the text, with halves of surrogate pairs, which tokenizers refuse, as U+FFFD."""
    beginning = text[:max_characters]
    if has_half_pair(beginning):
        return beginning.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return beginning


def batches(sequences: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], dict[str, NDArray[Any]]]]:
    """Places in `sequences` with the model's inputs for them, int32 (batch, tokens), shortest first.

    Sorted by length, so that little is padding; at most BATCH_TOKENS tokens each with the padding, or one sequence.
    """
    order = sorted(range(len(sequences)), key=lambda place: len(sequences[place]))
    places: list[int] = []
    for place in order:
        if places and (len(places) + 1) * len(sequences[place]) > BATCH_TOKENS:
            yield places, _padded([sequences[chosen] for chosen in places])
            places = []
        places.append(place)
    if places:
        yield places, _padded([sequences[chosen] for chosen in places])


def _padded(sequences: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int32]]:
    import numpy as np  # noqa: PLC0415

    numbers = np.zeros((len(sequences), max(map(len, sequences))), np.int32)  # 0 is [PAD]
    mask = np.zeros_like(numbers)
    for row, sequence in enumerate(sequences):
        numbers[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return {"input_ids": numbers, "attention_mask": mask}

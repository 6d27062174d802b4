"""Speed of sealing and opening, by kind of content; and what other compression levels would give.

    python benchmarks/envelope.py [FILE ...]

Without files it takes text that compresses as session files do, and random bytes. Prints megabytes of plain
data per second, best of five, and the time that each step of opening a vault takes.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from dualmem_mcp.crypto.envelope import (
    COMPRESSION_LEVEL,
    Algorithm,
    ObjectKind,
    Place,
    SealedReader,
    Section,
    bytes_reader,
    seal_object,
)
from dualmem_mcp.crypto.kdf import Argon2id, Pbkdf2
from dualmem_mcp.model.ids import DeviceId, VaultId

PLACE = Place(VaultId("00" * 16), ObjectKind.PACKAGE, "packages/benchmark", DeviceId("00" * 16))
KEY = bytes(32)
CHUNK_BYTES = 1 << 20


def measure_envelope(
    data: bytes, *, algorithm: Algorithm = Algorithm.AES_256_GCM, compress: bool = True
) -> dict[str, float]:
    """Megabytes of plain data sealed and opened per second, and sealed bytes for each plain one."""
    sections = [
        Section(f"thread/{number:05d}", data[start : start + CHUNK_BYTES], algorithm, compress)
        for number, start in enumerate(range(0, len(data), CHUNK_BYTES))
    ]
    sealed = b""

    def seal() -> None:
        nonlocal sealed
        sealed = seal_object(sections, place=PLACE, key_id="epoch", key_epoch=1, wrapping_key=KEY)

    def unseal() -> None:
        reader = SealedReader.open(bytes_reader(sealed), place_of=PLACE, unwrap=lambda _: KEY)
        assert sum(len(reader.read_section(name)) for name in reader.names) == len(data)

    megabytes = len(data) / 1e6
    return {
        "seal_mb_per_s": megabytes / best_seconds(seal),
        "open_mb_per_s": megabytes / best_seconds(unseal),
        "sealed_per_plain": len(sealed) / len(data),
    }


def best_seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """The shortest time of several runs: what the machine's other work does not disturb."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def text_like_sessions(size: int) -> bytes:
    """Lines of JSON with words of a skewed distribution and fields that repeat."""
    source = random.Random(1)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 9))) for _ in range(4000)]
    weights = [1 / (rank + 1) for rank in range(len(words))]
    lines: list[str] = []
    length = 0
    while length < size:
        text = " ".join(source.choices(words, weights, k=60))
        lines.append(
            f'{{"type":"assistant","uuid":"{source.randbytes(16).hex()}","isSidechain":false,"text":"{text}"}}'
        )
        length += len(lines[-1]) + 1
    return "\n".join(lines).encode()[:size]


def main() -> None:
    given = [Path(argument).read_bytes() for argument in sys.argv[1:]]
    text = b"".join(given) or text_like_sessions(16 << 20)
    print(f"text: {len(text) / 1e6:.1f} MB {'from the files given' if given else 'made up'}")
    for label, data, algorithm, compress in (
        ("text, zstd, AES-256-GCM", text, Algorithm.AES_256_GCM, True),
        ("text, zstd, ChaCha20-Poly1305", text, Algorithm.CHACHA20_POLY1305, True),
        ("random, AES-256-GCM", os.urandom(16 << 20), Algorithm.AES_256_GCM, False),
        ("4 KiB, AES-256-GCM", os.urandom(4096), Algorithm.AES_256_GCM, False),
    ):
        result = measure_envelope(data, algorithm=algorithm, compress=compress)
        sealing, opening, growth = result["seal_mb_per_s"], result["open_mb_per_s"], result["sealed_per_plain"]
        print(f"{label:32} seal {sealing:7.0f} MB/s   open {opening:7.0f} MB/s   sealed/plain {growth:.3f}")
    for level in (1, 3, 6, 9, 12):
        chunks = [text[start : start + CHUNK_BYTES] for start in range(0, len(text), CHUNK_BYTES)]
        size = 0

        def compress_all(level: int = level, chunks: list[bytes] = chunks) -> None:
            nonlocal size
            size = sum(len(zstandard.ZstdCompressor(level=level).compress(chunk)) for chunk in chunks)

        seconds = best_seconds(compress_all, repeats=2)
        marked = " (used)" if level == COMPRESSION_LEVEL else ""
        speed = len(text) / 1e6 / seconds
        print(f"zstd level {level:2}{marked:7} {speed:7.0f} MB/s   {size / len(text):.3f} of the size")
    for name, kdf in (("PBKDF2, 600,000 rounds", Pbkdf2()), ("Argon2id, 64 MiB", Argon2id())):
        seconds = best_seconds(lambda kdf=kdf: kdf.derive("a passphrase", bytes(32)), repeats=3)
        print(f"{name:32} {seconds * 1000:.0f} ms")


if __name__ == "__main__":
    main()

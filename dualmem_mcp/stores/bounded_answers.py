"""Answers of a service that is not trusted: no longer than can be right, and not dripped in for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import httpx

MOST_ANSWER_BYTES: Final = 256 << 20
"""Of 200 points found by vector and 200 by words, each with a payload far above what is usual."""


def bounded_answers(timeout_seconds: float) -> Callable[[httpx.Response], None]:
    """A hook for a client's responses, called before their bodies are read.

    A body that is too long or compressed raises ValueError, one that takes longer than `timeout_seconds` in all
    httpx.ReadTimeout: the client's own time-out is for each read.
    """

    def limit(response: httpx.Response) -> None:
        # Nobody was asked to compress, and a little can unpack to very much.
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise ValueError("a compressed answer")
        if not isinstance(response.stream, httpx.SyncByteStream):
            raise TypeError("an answer without a stream")
        response.stream = _Bounded(response.stream, time.monotonic() + timeout_seconds)

    return limit


class _Bounded(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        size_bytes = 0
        for chunk in self._stream:
            size_bytes += len(chunk)
            if size_bytes > MOST_ANSWER_BYTES:
                raise ValueError("an answer that is too long")
            if time.monotonic() > self._deadline:
                raise httpx.ReadTimeout("an answer that takes too long")
            yield chunk

    def close(self) -> None:
        self._stream.close()

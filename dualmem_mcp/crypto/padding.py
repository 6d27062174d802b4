"""Padding that hides the length of what is sealed."""

from __future__ import annotations

SECTION_FLOOR_BYTES = 4096
"""Below this Padmé's steps are a few bytes: enough to tell short answers apart, and, since sections are
compressed, to see through the length what one more word has in common with the rest. With the floor all
short sections have one size and the smallest step is 256 bytes. 4 KiB is what a disk block holds anyway."""

INDEX_FLOOR_BYTES = 1024
"""About ten sections; larger indexes grow by Padmé."""


def padded_length(length: int, *, floor: int) -> int:
    """The length in bytes to which `length` is padded: at least `floor`, else rounded up by Padmé.

    Padmé keeps the floor(log2 floor(log2 length)) + 1 highest bits below the leading one and rounds up:
    at most 12 % more, and only O(log log length) bits of the length to be seen.
    Source: Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs",
    PoPETs 2019, section 4, algorithm 1.
    """
    if length <= floor:
        return floor
    exponent = length.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (length + mask) & ~mask

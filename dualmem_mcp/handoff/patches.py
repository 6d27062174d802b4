"""What is new in some bytes, said by what is known already: a zstd frame with the earlier bytes as its dictionary.

A digest, a list of agents, the next part of a session: each repeats most of what the handoff before carried. The
earlier bytes are used as they are ("raw content"), so there is no dictionary to train, to store or to lose.
Source: zstd's `--patch-from`; RFC 8878, 5; docs/package.md, "Patches".
"""

from __future__ import annotations

import zstandard

from dualmem_mcp.errors import TamperedError

MAX_DICTIONARY_BYTES = 1 << 20
"""The end of the earlier bytes that is used. Over the real sessions measured, 4 MiB save 0 to 8 % of the first
package more and take five times as long (benchmarks/sync.py, "second handoff")."""

MAX_PATCH_EXPANSION = 1 << 15
"""Most bytes that one byte of a patch gives: a block gives at most 128 KiB and takes at least four bytes.
Source: RFC 8878, 3.1.1.2."""

_LEVEL = 9
"""Level 3 makes parts of sessions 9 % larger, 12 saves 1 % and takes twice as long."""


def make_patch(earlier: bytes, new: bytes) -> bytes:
    """The frame that `apply_patch` makes `new` of, with the end of `earlier` at hand."""
    dictionary = zstandard.ZstdCompressionDict(_end_of(earlier), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    # The window has to reach from the end of what is new back to the beginning of the dictionary.
    reach = (len(new) + MAX_DICTIONARY_BYTES).bit_length()
    window_log = min(max(reach, zstandard.WINDOWLOG_MIN), 27)
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=window_log)
    return bytes(zstandard.ZstdCompressor(dict_data=dictionary, compression_params=parameters).compress(new))


def apply_patch(earlier: bytes, patch: bytes, *, size: int, subject: str) -> bytes:
    """The `size` bytes that the patch was made of. Raises TamperedError if it does not give so many.

    Whether they are the right ones a checksum has to tell: another `earlier` may give any bytes.
    """
    dictionary = zstandard.ZstdCompressionDict(_end_of(earlier), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    try:
        # The frame's own size is what would be allocated, so it is compared before.
        if size <= MAX_PATCH_EXPANSION * len(patch) and zstandard.get_frame_parameters(patch).content_size == size:
            decompressor = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 27)
            data = bytes(decompressor.decompress(patch, max_output_size=size, allow_extra_data=False))
            if len(data) == size:
                return data
    except zstandard.ZstdError:
        pass
    raise TamperedError(
        "a part of a package cannot be made from the package before it",
        operation="read package",
        subject=subject,
        hint="Hand the conversation over again from the device that has it.",
    )


def _end_of(earlier: bytes) -> bytes:
    return earlier[-MAX_DICTIONARY_BYTES:]

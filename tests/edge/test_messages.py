"""Messages between server and edge process: any text passes, errors keep their kind, a torn line is the end."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp import errors
from dualmem_mcp.edge.messages import error_fields, error_of, parse_message, read_message, write_message
from dualmem_mcp.errors import DualmemError

# Half surrogate pairs included: clients cut emoji in two.
TEXTS = st.text(st.characters(), max_size=200)
KINDS = sorted(
    (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DualmemError)),
    key=lambda kind: kind.__name__,
)


@given(st.lists(st.dictionaries(TEXTS, TEXTS | st.integers() | st.none(), max_size=4), max_size=5))
def test_what_is_written_is_read(bodies: list[dict]) -> None:
    stream = io.BytesIO()
    for number, params in enumerate(bodies):
        write_message(stream, {"id": number, "params": params})
    stream.seek(0)
    assert [read_message(stream) for _ in bodies] == [
        {"id": number, "params": params} for number, params in enumerate(bodies)
    ]
    assert read_message(stream) is None


def test_a_line_cut_short_is_the_end() -> None:
    stream = io.BytesIO()
    write_message(stream, {"id": 1})
    assert read_message(io.BytesIO(stream.getvalue()[:-1])) is None


@pytest.mark.parametrize("line", [b"", b"hello\n", b"[1]\n", b"{}\n", b'{"id": \xff}\n', b"7\n"])
def test_what_is_no_message_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        parse_message(line)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_kind_and_what_it_says(kind: type[DualmemError]) -> None:
    error = error_of(error_fields(kind("what", operation="search", subject="on what", hint="what now")))
    assert type(error) is kind
    assert (error.message, error.operation, error.subject, error.hint) == ("what", "search", "on what", "what now")


def test_an_unknown_error_is_an_internal_one() -> None:
    fields = {**error_fields(DualmemError("what")), "kind": "SomethingNewer"}
    assert type(error_of(fields)) is DualmemError

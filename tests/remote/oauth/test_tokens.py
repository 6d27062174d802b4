"""Tokens as clients carry them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualmem_mcp.errors import LockedError
from dualmem_mcp.model.grant import UserId
from dualmem_mcp.remote.oauth.tokens import mint, parse


def test_a_token_is_read_as_it_was_made():
    token = mint(UserId("anna"))
    assert token.text.startswith("dm1.anna.")
    assert parse(token.text) == token
    assert len(token.token_id) == 16
    assert len(token.secret) == 32


def test_no_two_tokens_are_alike():
    tokens = [mint(UserId("anna")) for _ in range(50)]
    assert len({token.token_id for token in tokens}) == len({token.secret for token in tokens}) == 50


def test_what_is_kept_opens_with_the_token_alone():
    token, other = mint(UserId("anna")), mint(UserId("anna"))
    kept = token.kept(b"s" * 32, 5)
    assert token.unwrap(kept.wrapped) == b"s" * 32
    assert b"s" * 8 not in kept.wrapped
    assert token.secret not in kept.digest + kept.wrapped + kept.token_id
    with pytest.raises(LockedError):
        other.unwrap(kept.wrapped)


def test_a_host_that_keeps_the_key_itself_keeps_no_wrap():
    token = mint(UserId("owner"))
    assert token.kept(b"", 5).wrapped == b""
    assert token.unwrap(b"") == b""


def test_a_token_does_not_show_itself():
    token = mint(UserId("anna"))
    assert token.text.rpartition(".")[2] not in repr(token)
    assert repr(token.secret) not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dm1",
        "dm2" + mint(UserId("a")).text[3:],
        mint(UserId("a")).text + "=",
        mint(UserId("a")).text + "\n",
        mint(UserId("a")).text[:-1],
        mint(UserId("A")).text,
        mint(UserId("a/../b")).text,
        mint(UserId("a")).text.replace(".", ".."),
    ],
    # Tokens are random, and names of tests must be the same in every process that runs some of them.
    ids=["empty", "scheme", "scheme 2", "padded", "line end", "short", "capital", "path", "empty parts"],
)
def test_what_is_no_token_is_none(text):
    assert parse(text) is None


@given(st.text(max_size=120))
def test_any_text_is_a_token_or_none(text):
    assert parse(text) is None or text.startswith("dm1.")

"""The rule by which searches find entities: the reference server's."""

import pytest

from dualmem_mcp.model.graph import Entity, matches

ENTITY = Entity("Ada Lovelace", "person", ("wrote Notes", "ΟΔΥΣΣΕΥΣ", "İstanbul", "smile 😀", "a\0b"))


@pytest.mark.parametrize(
    "query",
    [
        "",
        "ada",
        "LACE",
        "person",
        "wrote n",
        "οδυσσευς",
        "ΣΕΥΣ",
        "i̇stan",
        "😀",
        "A\0B",
        "\ud83d",
        " \ud83d",
    ],
)
def test_is_held(query: str) -> None:
    assert matches(ENTITY, query)


@pytest.mark.parametrize(
    "query",
    ["lovelace person", "adalovelace", "x", "lacep", "ισ", "\ud83e", "lace\0", "οδυσσευσ"],
)
def test_is_not_held(query: str) -> None:
    assert not matches(ENTITY, query)


def test_the_other_half_of_a_character_is_held_too() -> None:
    assert matches(ENTITY, "\ude00")
    assert not matches(ENTITY, "\ude01")

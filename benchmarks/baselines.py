"""What search is compared with, over the same index: words alone, vectors alone, and plain fusion of the two.

The query is read as the product reads it: stop words are no search words, and names of speakers are taken out of
what is embedded. Both baselines are the better for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from dualmem_mcp.model.ids import parse_conversation_id
from dualmem_mcp.model.search import Collection, Filter
from dualmem_mcp.ports import SearchIndex, SystemClock
from dualmem_mcp.search.query import Query, read_query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FUSED = 100
K = 60
"""Source: Cormack, Clarke, Büttcher (2009), Reciprocal Rank Fusion outperforms Condorcet, section 3."""

Search = Callable[[str, str], list[str]]
"""Question and conversation id (or "") to the ids found, `<conversation>/<turn>`, the best first."""

Embed = Callable[[str], "NDArray[np.float32]"]


def baselines(index: SearchIndex, embed: Embed, length: int) -> dict[str, Search]:
    """The three systems by name; each gives at most `length` turns."""

    def read(question: str, conversation_id: str) -> tuple[Query, Filter]:
        where = Filter(
            collections=(Collection.CONVERSATIONS,),
            conversation_id=parse_conversation_id(conversation_id) if conversation_id else None,
        )
        return read_query(question, known_authors=index.authors(where), now=SystemClock().now()), where

    def named(ids: Iterable[int]) -> list[str]:
        return [f"{item.conversation_id}/{item.turn_id}" for item in index.items(list(ids))]

    def by_words(question: str, conversation_id: str) -> list[str]:
        query, where = read(question, conversation_id)
        return named(index.lexical(query.terms, where, length).ids.tolist())

    def by_vectors(question: str, conversation_id: str) -> list[str]:
        query, where = read(question, conversation_id)
        return named(index.nearest(embed(query.embedded), where, length).ids.tolist())

    def by_fusion(question: str, conversation_id: str) -> list[str]:
        query, where = read(question, conversation_id)
        words = index.lexical(query.terms, where, FUSED).ids.tolist()
        vectors = index.nearest(embed(query.embedded), where, FUSED).ids.tolist()
        return named(fuse([words, vectors])[:length])

    return {"BM25": by_words, "vectors": by_vectors, f"RRF, k = {K}": by_fusion}


def fuse(rankings: Iterable[Sequence[int]]) -> list[int]:
    """Reciprocal rank fusion: the sum of 1 / (k + rank) over the rankings, highest first; ties by id."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, identity in enumerate(ranking, start=1):
            scores[identity] = scores.get(identity, 0.0) + 1 / (K + rank)
    return sorted(scores, key=lambda identity: (-scores[identity], identity))

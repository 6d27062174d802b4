"""What the edge does for the application, wherever it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypedDict, Unpack


class FilterOptions(TypedDict, total=False):
    """Which items a search may find; `search/request.py` says what each may be, and its default."""

    scope: str
    conversation_id: str | None
    kinds: Sequence[str]
    author: str
    since: str
    until: str


class SearchOptions(FilterOptions, total=False):
    """What a search can be told beside its query: which items, how many, and how much of them."""

    limit: int
    token_budget: int | None


class EdgeInterface(Protocol):
    """Search and indexing of one data home. Arguments and results are JSON values, so that they can cross
    processes; errors are those of `errors.py`."""

    def search(self, query: str, **options: Unpack[SearchOptions]) -> dict[str, Any]:
        """The contract's *search* fields: results, partial, tiers, timings_ms, and warnings.

        Times are dates, times of ISO 8601 or ages such as `7d`. Raises UsageError for what does not fit.
        """
        ...

    def related(self, query: str, *, conversation_id: str, cwd: str) -> Sequence[Mapping[str, Any]]:
        """Passages of other conversations of the project in that folder: text, conversation_id, turn_id, author,
        timestamp; nothing where the edge is not at hand at once."""
        ...

    def preload_for(
        self, conversation_id: str, *, own: Sequence[Mapping[str, Any]], limit: int, threshold: float
    ) -> dict[str, Any]:
        """What a device with a cache of `limit` vectors is to have at hand of this conversation: section, base64 of
        what `handoff/preload.py` writes, and problem, which says why there is nothing, or not all of it.

        `own` is what the conversation is at, in fields of `search.preloading.OwnItem`: it comes first, as far as it
        is indexed with these texts or is quickly embedded; then what is near to it, by a cosine of at least the
        threshold.
        """
        ...

    def preload(self, conversation_id: str, section: str) -> int:
        """Have at hand what the package of that conversation brings for it, a section as in `preload_for`; how many
        items came in by that. 0 on a device that has its whole index at hand, and where a process has to be started
        for it: it then takes them in a moment. Raises TamperedError."""
        ...

    def status(self) -> dict[str, Any] | None:
        """What is indexed, with which model, and what still waits; None where that is not known at once."""
        ...

    def wake(self) -> None:
        """Look soon whether there is something new to index; returns at once."""
        ...

    def place(self, conversation_id: str, *, max_seconds: float) -> dict[str, Any]:
        """Place the conversation's vectors in the search service, for so long: points, bytes, duration_ms, ok,
        usd_month, waiting (items that are not placed yet), warnings. What goes wrong is a warning; where no
        service is used nothing is done."""
        ...

    def move_vectors(self, *, max_seconds: float) -> dict[str, Any]:
        """Move vectors to the tiers that they deserve, for so long; the fields of `dualmem tiers apply --json`.
        What goes wrong is in them."""
        ...

    def forget_vectors(self, conversation_id: str) -> dict[str, Any]:
        """Remove an erased conversation's points from the search service: removed, warnings. What goes wrong is a
        warning; the next move does it then."""
        ...

    def close(self) -> None:
        """Write what is not written yet and let everything go."""
        ...

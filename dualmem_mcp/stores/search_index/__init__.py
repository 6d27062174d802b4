"""The search index of one collection: words and vectors in one encrypted SQLite file."""

from dualmem_mcp.stores.search_index.index import SqliteSearchIndex, open_search_index

__all__ = ["SqliteSearchIndex", "open_search_index"]

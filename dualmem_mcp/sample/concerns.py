"""The vocabulary of the sample session: pieces of work from `concerns.toml`, and the backends they are done for."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Final


@dataclass(frozen=True, slots=True)
class Concern:
    """One piece of work; all texts are templates over the words of a backend.

    Code before and after, the test that shows the difference, how it failed at first and what repaired
    it (`repair_old` becomes `repair_new`), and what was said about it. Only some were corrected by the user.
    """

    name: str
    requests: tuple[str, ...]
    thought: str
    plan: str
    before: str
    after: str
    test: str
    failure: str
    finding: str
    repair_old: str
    repair_new: str
    summary: str
    commit: str
    correction: str = ""


@dataclass(frozen=True, slots=True)
class Backend:
    """A storage backend of the rate limiter, by the words that its code and its people use."""

    module: str
    store: str
    noun: str
    resource: str
    command: str
    error: str


BACKENDS: Final = (
    Backend("redis", "RedisStore", "key", "the Redis primary", "EVALSHA", "ConnectionError"),
    Backend("sqlite", "SqliteStore", "row", "the SQLite file", "UPSERT", "OperationalError"),
    Backend("memcached", "MemcachedStore", "item", "the memcached ring", "CAS", "ServerGone"),
    Backend(
        "postgres", "PostgresStore", "row", "the Postgres replica set", "INSERT ON CONFLICT", "SerializationError"
    ),
    Backend("dynamo", "DynamoStore", "record", "the DynamoDB table", "UpdateItem", "ThrottlingError"),
    Backend("etcd", "EtcdStore", "lease", "the etcd cluster", "Txn", "LeaseNotFound"),
    Backend("memory", "MemoryStore", "bucket", "the process", "setdefault", "RuntimeError"),
    Backend("consul", "ConsulStore", "entry", "the Consul agent", "KV Txn", "SessionInvalid"),
    Backend(
        "cassandra", "CassandraStore", "counter", "the Cassandra ring", "lightweight transaction", "WriteTimeout"
    ),
    Backend("tikv", "TikvStore", "region", "the TiKV store", "pessimistic lock", "RegionUnavailable"),
)


def load_concerns() -> tuple[Concern, ...]:
    """All pieces of work, in the order of the file."""
    data = tomllib.loads(resources.files(__package__).joinpath("concerns.toml").read_text(encoding="utf-8"))
    return tuple(Concern(**{**entry, "requests": tuple(entry["requests"])}) for entry in data["concern"])


def words(backend: Backend, random_numbers: random.Random) -> dict[str, object]:
    """What the templates' names stand for: the backend's words, and numbers of a plausible size."""
    draw = random_numbers.randint
    limit = draw(3, 40) * 10
    return {
        "module": backend.module,
        "Store": backend.store,
        "noun": backend.noun,
        "noun_plural": backend.noun.removesuffix("y") + ("ies" if backend.noun.endswith("ry") else "s"),
        "resource": backend.resource,
        "Resource": backend.resource[0].upper() + backend.resource[1:],
        "command": backend.command,
        "error": backend.error,
        "limit": limit,
        "burst": max(2, limit // draw(3, 9)),
        "window": draw(2, 12) * 5,
        "over": draw(41, 980),
        "skew": draw(80, 900),
        "micros": draw(20, 400),
        "gap": draw(15, 600),
        "growth": draw(40, 900),
        "steady": draw(60, 350),
        "expiry": draw(20, 240),
        "timeout": draw(2, 30) * 100,
        "tenant": draw(100, 9999),
        "keymax": draw(6, 20) * 10,
        "batch": draw(4, 60),
        "slow": draw(12, 190),
        "fast": draw(1, 5),
        "closems": draw(3, 9) * 100,
        "hot": draw(45, 93),
        "moved": draw(260, 300),
        "few": draw(231, 258),
    }


def fill(template: str, values: Mapping[str, object]) -> str:
    """The text with its names replaced. Raises KeyError for a name that no backend has."""
    return Template(template).substitute(values)

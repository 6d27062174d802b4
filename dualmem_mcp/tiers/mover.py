"""Which device of the vault moves vectors: one at a time, said by an object in the bucket.

Two devices that move by what each knows would undo each other's moves, and could remove what the other has just
counted on. Source: docs/format.md, "The mover".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from dualmem_mcp.crypto.canonical import Fields, canonical_json, time_text
from dualmem_mcp.crypto.envelope import ObjectKind, SealedReader, Section, bytes_reader, seal_object
from dualmem_mcp.errors import ConflictError, NotFoundError, TamperedError
from dualmem_mcp.failpoints import reach
from dualmem_mcp.handoff.channel import Channel
from dualmem_mcp.model.ids import DeviceId
from dualmem_mcp.ports import BlobCache

MOVER_KEY: Final = "tiers/mover"
LEASE: Final = timedelta(days=7)
"""So long a device stays the mover after it last said that it is."""

RENEW_AFTER: Final = timedelta(days=1)
"""A mover that moves something says so again when it last did so long ago."""

_SECTION: Final = "mover"
_MOST_BYTES: Final = 64 << 10
_SEEN: Final = "local/tiers/mover"
_NEW: Final = "local/tiers/mover-is-new"
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Holder:
    """The device that moves, and until when it does without saying so again."""

    device_id: DeviceId
    until: datetime


@dataclass(frozen=True, slots=True)
class _Seen:
    """The object as this device last saw it, and since when it has had that tag, by this device's clock."""

    holder: Holder
    etag: str
    since: datetime


class Mover:
    """This device's side of it.

    Clocks of devices may differ by years. Where the bucket has a clock, times are by that; where it has none, a
    lease counts as over only if the object has also stayed as it is for a day by this device's own clock: a device
    that is at work would have renewed it by then.
    """

    def __init__(self, channel: Channel) -> None:
        self._vault = channel.vault
        self._objects = channel.objects
        self._blobs = channel.blobs
        self._clock = channel.clock
        self._etag = ""

    @property
    def is_new(self) -> bool:
        """Whether this device has become the mover, and not looked yet where the one before has left things."""
        return bool(self._blobs.get(_NEW))

    def has_looked(self) -> None:
        """Remember that it has."""
        self._blobs.put(_NEW, b"")

    def acquire(self, *, take_over: bool = False) -> Holder | None:
        """Become the mover, or stay it: None, or the other device that is. With `take_over` it is not asked.

        Raises what the bucket raises, and ConflictError if others go on changing the object.
        """
        for _ in range(_TRIES):
            try:
                seen = self._look()
            except NotFoundError:
                seen = None
            now = self._now()
            if seen is not None and not take_over and not self._is_free(seen, now):
                if seen.holder.device_id != self._vault.device_id:
                    return seen.holder
                if timedelta(0) <= LEASE - (seen.holder.until - now) < RENEW_AFTER:
                    self._etag = seen.etag
                    return None
            if seen is None or seen.holder.device_id != self._vault.device_id:
                self._blobs.put(_NEW, b"1")
            try:
                self._say(seen, now)
            except ConflictError:
                continue
            return None
        raise ConflictError(
            "other devices go on taking over the moving of vectors",
            operation="move vectors",
            subject=MOVER_KEY,
            hint="Let one of them finish, and try again.",
        )

    def confirm(self) -> None:
        """Raises ConflictError if another device has taken over since, and what the bucket raises."""
        try:
            if self._objects.stat(MOVER_KEY).etag == self._etag:
                return
        except NotFoundError:
            pass
        raise ConflictError(
            "another device has taken over the moving of vectors",
            operation="move vectors",
            subject=MOVER_KEY,
            hint="It goes on where this one stopped; `dualmem tiers` names it.",
        )

    def _look(self) -> _Seen:
        """The object, and since when it is known to be as it is. Raises NotFoundError."""
        etag = self._objects.stat(MOVER_KEY).etag
        data = self._objects.get(MOVER_KEY, length=_MOST_BYTES)
        try:
            holder = self._opened(data)
        except (TamperedError, NotFoundError):  # damaged, or sealed under a key that is nowhere: nobody's
            holder = Holder(DeviceId(""), datetime.fromtimestamp(0, self._clock.now().tzinfo))
        now = self._clock.now()
        known = _seen(self._blobs)
        since = known.since if known is not None and known.etag == etag and known.since <= now else now
        return self._keep(_Seen(holder, etag, since))

    def _is_free(self, seen: _Seen, now: datetime) -> bool:
        own = seen.holder.device_id
        members = {one.device_id for one in self._vault.devices() if one.revoked_after is None}
        if own not in members:
            return True
        if own == self._vault.device_id:
            return False
        unchanged = self._clock.now() - seen.since
        over = seen.holder.until <= now
        if self._objects.server_time() is None:
            over = over and unchanged >= RENEW_AFTER
        return over or unchanged >= LEASE

    def _say(self, seen: _Seen | None, now: datetime) -> None:
        holder = Holder(self._vault.device_id, now + LEASE)
        for key, data in self._vault.pending_epoch():
            self._objects.put(key, data)
            self._vault.mark_uploaded(key)
        sealed = self._sealed(holder)
        reach("mover: sealed")
        if seen is None:
            self._etag = self._objects.put(MOVER_KEY, sealed, if_absent=True)
        else:
            self._etag = self._objects.put(MOVER_KEY, sealed, if_match=seen.etag)
        reach("mover: said")
        self._keep(_Seen(holder, self._etag, self._clock.now()))

    def _now(self) -> datetime:
        return self._objects.server_time() or self._clock.now()

    def _sealed(self, holder: Holder) -> bytes:
        content = canonical_json(
            {"format": 1, "device_id": holder.device_id, "until": time_text(holder.until)},
        )
        epoch = self._vault.current_epoch()
        return seal_object(
            [Section(_SECTION, content)],
            place=self._vault.place(ObjectKind.MOVER, MOVER_KEY),
            key_id="epoch",
            key_epoch=epoch,
            wrapping_key=self._vault.epoch_key(epoch),
        )

    def _opened(self, data: bytes) -> Holder:
        reader = SealedReader.open(
            bytes_reader(data),
            place_of=self._vault.place_of(ObjectKind.MOVER, MOVER_KEY),
            unwrap=self._vault.unwrap,
        )
        if _SECTION not in reader.names or reader.entry(_SECTION).size > _MOST_BYTES:
            raise TamperedError("the mover's object has no such section", subject=MOVER_KEY)
        fields = Fields.parse(reader.read_section(_SECTION), subject=MOVER_KEY, most_bytes=_MOST_BYTES)
        return Holder(DeviceId(fields.text("device_id")), fields.time("until"))

    def _keep(self, seen: _Seen) -> _Seen:
        """Remember it, where that is news: it is read at each run."""
        if seen != _seen(self._blobs):
            fields = {
                "device_id": seen.holder.device_id,
                "until": seen.holder.until.isoformat(),
                "etag": seen.etag,
                "since": seen.since.isoformat(),
            }
            self._blobs.put(_SEEN, canonical_json(fields))
        return seen


def last_mover(blobs: BlobCache) -> Holder | None:
    """The mover as this device last saw it; None if it never looked. Nothing is asked of the bucket."""
    seen = _seen(blobs)
    return None if seen is None or not seen.holder.device_id else seen.holder


def _seen(blobs: BlobCache) -> _Seen | None:
    kept = blobs.get(_SEEN)
    if not kept:
        return None
    fields = json.loads(kept)
    return _Seen(
        Holder(DeviceId(fields["device_id"]), datetime.fromisoformat(fields["until"])),
        fields["etag"],
        datetime.fromisoformat(fields["since"]),
    )

"""Who may log in on this host: its one user, or the users of a folder, each by the passphrase."""

from __future__ import annotations

import logging
from typing import Final, NoReturn

from dualmem_mcp.crypto.user_keys import open_user_file, waste_a_derivation
from dualmem_mcp.errors import LockedError, NotFoundError, StoreUnreachableError, TamperedError
from dualmem_mcp.model.grant import OWNER, user_id
from dualmem_mcp.remote.interfaces import Unlocked
from dualmem_mcp.server.lazy_app import LazyApp
from dualmem_mcp.stores.user_folder import UserFolder

_log = logging.getLogger(__name__)

_WRONG: Final = "the name or the passphrase is wrong"


class OwnAccount:
    """The one user of a host that keeps the key of the data home itself: the vault's passphrase lets in."""

    several = False

    def __init__(self, app: LazyApp) -> None:
        self._app = app

    @property
    def has_passphrase(self) -> bool:
        """Whether there is one to log in with. Raises TamperedError for a vault that is damaged."""
        return self._app.opened is not None and self._app.opened.joined_channel() is not None

    def unlock(self, name: str, passphrase: str) -> Unlocked:  # noqa: ARG002  (there is one)
        """As the interface says. A host whose data home belongs to no vault lets nobody in."""
        app = self._app.opened
        if app is None:
            raise StoreUnreachableError(
                "the data home is not open yet", operation="log in", hint="Try again in a moment."
            )
        try:
            app.check_passphrase(passphrase)
        except LockedError:
            _refuse("the passphrase is wrong")
        except NotFoundError:
            raise LockedError(
                "this host belongs to no vault yet, so there is no passphrase to log in with",
                operation="log in",
                hint="On the host, run `dualmem init` or `dualmem join BUCKET`.",
            ) from None
        return Unlocked(OWNER, b"")


class UserAccounts:
    """The users of a folder. Whether there is a user of some name cannot be told from an answer or its time."""

    several = True

    def __init__(self, folder: UserFolder) -> None:
        self._folder = folder

    def unlock(self, name: str, passphrase: str) -> Unlocked:
        """As the interface says."""
        user = user_id(name)
        if user is None or not self._folder.has(user):
            waste_a_derivation(passphrase)
            _refuse(_WRONG)
        try:
            return Unlocked(user, open_user_file(self._folder.read(user), passphrase, user=user))
        except LockedError:
            _refuse(_WRONG)
        except NotFoundError:  # removed at this moment
            waste_a_derivation(passphrase)
            _refuse(_WRONG)
        except TamperedError as error:
            # For whoever runs the host to know, and not for strangers.
            _log.error("%s. %s", error.message, error.hint)
            waste_a_derivation(passphrase)
            _refuse(_WRONG)


def _refuse(what: str) -> NoReturn:
    raise LockedError(what, operation="log in", hint="Type it again.") from None

"""The certificate of an endpoint that brings its own TLS."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

from dualmem_mcp.errors import UsageError
from dualmem_mcp.remote.options import RemoteOptions

_log = logging.getLogger(__name__)

_LOOK_SECONDS: Final = 60.0


class Certificate:
    """A certificate and its key in PEM files, and the TLS context that shows it. Raises UsageError."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Every client of an MCP server speaks it, and every browser.
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.set_alpn_protocols(["http/1.1"])
        try:
            self._load()
        except (OSError, ValueError) as error:  # SSLError is an OSError
            reason = os.strerror(error.errno or 0) if isinstance(error, FileNotFoundError | PermissionError) else ""
            raise UsageError(
                f"the certificate or its key cannot be used{f': {reason}' if reason else ''}",
                operation="serve",
                subject=str(certificate),
                hint="Both have to be readable PEM files, the key without a passphrase, and of that certificate.",
            ) from None

    @classmethod
    def of(cls, options: RemoteOptions) -> Certificate | None:
        """That of the options; None where a proxy brings TLS."""
        if options.certificate is None or options.key is None:
            return None
        return cls(options.certificate, options.key)

    async def keep_renewed(self, look_seconds: float = _LOOK_SECONDS) -> None:
        """Show a renewed certificate to whoever connects from then on; the files are looked at every minute."""
        known = self._state()
        while True:
            await asyncio.sleep(look_seconds)
            now = self._state()
            if now is None or now == known:
                continue
            try:
                self._load()
            except (OSError, ValueError):
                # Half written, or the key still is the old one's: the next look will find both.
                _log.warning("the renewed certificate cannot be used yet")
                continue
            known = now
            _log.info("took the renewed certificate")

    def _load(self) -> None:
        # Tried on another context first: one that is given a certificate without its key shows none any more.
        for context in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self.context):
            # A key with a passphrase fails at once: nobody is there to type it.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")

    def _state(self) -> tuple[int, int] | None:
        try:
            return self._certificate.stat().st_mtime_ns, self._key.stat().st_mtime_ns
        except OSError:
            return None

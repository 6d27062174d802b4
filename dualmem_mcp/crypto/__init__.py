"""Sealing what leaves the device: envelope, keys, vault. Formats: docs/format.md.

Cryptography is that of the `cryptography` package; nothing here implements a cipher, hash or curve.
"""

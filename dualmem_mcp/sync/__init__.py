"""Sync: this device and all others see the same memory, through nothing but the bucket. `docs/sync.md` has the whole."""

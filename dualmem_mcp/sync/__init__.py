"""Sync: this device and all others see the same memory, through the bucket alone. `docs/sync.md` has it all."""

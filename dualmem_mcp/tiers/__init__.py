"""Vectors in tiers outside the device: worth, plan, placing, moving, checking, and asking them."""

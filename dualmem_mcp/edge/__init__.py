"""The edge: what searches on this device, in this process or in one of its own."""

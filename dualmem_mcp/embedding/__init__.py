"""Embedding models: texts to vectors, on this device."""

"""How many bytes a token takes: as an id on disk, and as text."""

from __future__ import annotations

BYTES_PER_TOKEN = 4.0
"""Bytes of text for a token, where only the size of the text is known."""


def id_bytes(vocab_size: int) -> int:
    """Bytes of a token id on disk: 2 (uint16) where they suffice, else 4 (int32)."""
    return 2 if vocab_size <= 2**16 else 4

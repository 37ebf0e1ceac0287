"""The web in miniature: a generated corpus whose entropy is known."""

from miniweb.grammar import GENRES, Document, documents
from miniweb.world import LARGE, SMALL, World

__all__ = ["GENRES", "LARGE", "SMALL", "Document", "World", "documents"]

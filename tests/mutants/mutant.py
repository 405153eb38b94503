"""A mutant: the textbook backend with one step got wrong."""

from dataclasses import dataclass

from mutants.textbook import Textbook


@dataclass(frozen=True)
class Mutant:
    """name, the bug in words, and the backend that has it."""

    name: str
    bug: str
    backend: Textbook


def mutant(name, bug, **overrides):
    """Return a mutant whose class has these attributes; a function takes self, as a method does."""
    return Mutant(name, bug, type(f"Mutant_{name}", (Textbook,), overrides)())


def original(step):
    """Return the unmutated method of this name."""
    return getattr(Textbook, step)

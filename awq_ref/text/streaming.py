"""The text of ids that come one by one, in pieces, never half a character.

StreamDecoder   push an id, get the text that is now certain
"""

from dataclasses import dataclass, field
from typing import Protocol

HALF_CHARACTER = "\ufffd"  # what bytes that are not UTF-8, or not yet, decode to
LONGEST_HALF = 3  # bytes, so tokens, of a character that one more byte would complete
CONTEXT = 8  # ids before the pending ones that a decoder may look at


class Decodes(Protocol):
    """What streaming asks of a tokenizer."""

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str: ...

    def is_silent(self, token_id: int, *, skip_special_tokens: bool = True) -> bool: ...


@dataclass
class StreamDecoder:
    """Turns ids that come one by one into text that comes piece by piece.

    The pieces add up to the text of all ids. A piece is held back while it ends in the middle of a character, which
    three more ids decide: U+FFFD that is meant, or bytes that never become a character, come that much later. Ids
    are decoded together with the few before them, because a token's text may depend on what precedes it; so an id
    costs the same however long the text is.

    Byte-fallback tokenizers turn a whole run of byte tokens into U+FFFD when one of them is wrong or not complete.
    What was printed of such a run stays as it is, and U+FFFD that is meant may be printed more than once there.
    """

    tokenizer: Decodes
    skip_special_tokens: bool = True
    context: list[int] = field(default_factory=list)  # ids already emitted, kept for what follows
    pending: list[int] = field(default_factory=list)  # ids not yet emitted

    def _text(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=self.skip_special_tokens)

    def _take(self, count: int) -> str:
        """Return the text of the first pending ids, which become the context."""
        taken, before = self.pending[:count], self._text(self.context)
        text = self._text(self.context + taken)
        piece = text[len(before) :] if text.startswith(before) else self._text(taken)
        # An id without a text of its own (a lone space at the start) still matters to what follows it.
        self.context = taken if piece else (self.context + taken)[-CONTEXT:]
        self.pending = self.pending[count:]
        return piece

    def push(self, token_id: int) -> str:
        """Take one more id; return the text that is now certain (often one word, sometimes nothing)."""
        if self.tokenizer.is_silent(int(token_id), skip_special_tokens=self.skip_special_tokens):
            return ""
        self.pending.append(int(token_id))
        text = self._text(self.context + self.pending)
        if not text.endswith(HALF_CHARACTER):
            return self._take(len(self.pending))
        decided = len(self.pending) - LONGEST_HALF
        if decided > 0 and text.startswith(self._text(self.context + self.pending[:decided])):
            return self._take(decided)
        return ""

    def flush(self) -> str:
        """Return what was held back: the end of a text that stops within a character."""
        return self._take(len(self.pending)) if self.pending else ""

"""Speculation without a second model: guess the next tokens from the text itself, and check all guesses in one pass.

    Speculation   how many tokens to guess, and what came of it
    Lookup        a text that knows where its last tokens stood before
    Lookup.guess  what may come next
    fitting       those guesses that a pass may read
    picked        the tokens that are picked behind a text and its guesses

A guess is what followed the last time that the text's last few tokens stood in it. The pass that reads the newest token
reads the guesses behind it too, and gives the logits behind each. Then a token is picked as ever, from the first of
them; as long as the picked token is the one that was guessed, the next logits are those of the right text, and the next
token is picked from them; the first one that is not ends the step, and the columns of the other guesses are cut off.

Every token is picked once, from the logits of its own text: nothing about the picking changes, whether it is greedy or
draws, and a seed gives the text that it gives without. docs/equations.md#llm-16 says why this is the rule of
speculative sampling.

Sources: Leviathan et al. 2023, arXiv:2211.17192; Saxena 2023, "Prompt lookup decoding" (the guesses).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from awq_ref.checks import require_between
from awq_ref.dtypes import F32
from awq_ref.model.config import ModelConfig
from awq_ref.model.rope import turned_length

MOST_GUESSES = 64
LONGEST = 3  # tokens that are looked up at most; then fewer, down to SHORTEST
SHORTEST = 1


@dataclass
class Speculation:
    """How many tokens to guess in a step, 0 for none, and the sums of what came of it.

    steps    : passes behind the prompt, but for one that an end token ends
    tokens   : that these gave
    guessed  : tokens that were guessed
    accepted : of these, the right ones
    """

    guesses: int = 0
    steps: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    guessed: int = field(default=0, init=False)
    accepted: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        require_between("speculate", "guesses", self.guesses, 0, MOST_GUESSES)

    @property
    def tokens_per_step(self) -> float:
        """Tokens that a pass gave; without speculation 1."""
        return self.tokens / self.steps if self.steps else 0.0

    def count(self, guessed: int, tokens: int) -> None:
        """Add a step that gave some tokens, of which the last was no guess."""
        self.steps += 1
        self.tokens += tokens
        self.guessed += guessed
        self.accepted += tokens - 1

    def __str__(self) -> str:
        return f"{self.tokens_per_step:.2f} tokens per step, {self.accepted} of {self.guessed} guesses right"


class Lookup:
    """A text, and where the last tokens of it stood before; adding a token costs the same however long the text is.

    Examples
    --------
    >>> text = Lookup([1, 2, 3, 4, 1, 2])
    >>> text.guess(3)
    [3, 4, 1]
    >>> text.add(9)
    >>> text.guess(3)
    []
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._tokens: list[int] = []
        self._ends: dict[tuple[int, ...], int] = {}  # some tokens in a row -> where they ended last
        self._before: list[int] = []  # where the last tokens ended before, the longest row of them first
        for token in tokens:
            self.add(token)

    def add(self, token: int) -> None:
        """Make the text longer by a token."""
        self._tokens.append(token)
        end = len(self._tokens)
        self._before = []
        for length in range(min(LONGEST, end), SHORTEST - 1, -1):
            row = tuple(self._tokens[-length:])
            if row in self._ends:
                self._before.append(self._ends[row])
            self._ends[row] = end

    def guess(self, most: int) -> list[int]:
        """Return what followed when the last tokens stood in the text before; of the longest row that did."""
        return self._tokens[self._before[0] :][:most] if self._before and most > 0 else []


def same_rope(config: ModelConfig, length: int, longer: int) -> bool:
    """Tell whether the tokens of a text turn alike at both lengths [LLM-14]: else a pass over guesses would differ."""
    ropes = [rope for rope in (config.rope, config.window_rope) if rope is not None]
    return all(turned_length(rope, length) == turned_length(rope, longer) for rope in ropes)


def fitting(guesses: list[int], config: ModelConfig, length: int) -> list[int]:
    """Return the guesses behind a text of some length that fit the context; none if they would turn otherwise."""
    guesses = guesses[: config.context - length]
    return guesses if same_rope(config, length, length + len(guesses)) else []


def picked(logits: F32, guesses: list[int], pick: Callable[[F32], int]) -> Iterator[int]:
    """Yield the tokens that follow a text: one, and one more for every guess that was right so far.

    Equation [LLM-16]  x_1 ~ p(. | text),  x_{i+1} ~ p(. | text, x_1 .. x_i)  as long as x_i = d_i
        x -> token
        d -> guesses
        p -> what pick makes of a row of logits
    Source: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1; docs/equations.md#llm-16.

    Parameters
    ----------
    logits : float32 array, shape (guesses + 1, vocab_size)
        Behind the text, and behind each guess.
    """
    for row, guess in zip(logits, [*guesses, None], strict=True):
        token = pick(row)
        yield token
        if token != guess:
            return

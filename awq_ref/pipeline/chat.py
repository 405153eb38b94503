"""A conversation with a model, without a terminal.

ChatSession       messages, an answer that comes in pieces, a cache that is kept from turn to turn
ChatSettings      how to answer
ChatStats         what was read and written, and how fast
"""

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from awq_ref.checks import require_between
from awq_ref.dtypes import F32, I64
from awq_ref.errors import RangeError
from awq_ref.model import KVCache, Lookup, Speculation, fitting, must_reread, new_cache, picked
from awq_ref.pipeline.chat_format import ChatFormat, Message
from awq_ref.pipeline.model import Model
from awq_ref.text import GREEDY, Sampling, sampler

MOST_NEW_TOKENS = 512  # of an answer, and at most this share of the context:
ANSWER_SHARE = 4


@dataclass(frozen=True)
class ChatSettings:
    """How to answer.

    sampling        how a token is chosen
    max_new_tokens  of an answer; None: a quarter of the context, at most 512
    system          what stands before the conversation, or None
    seed            of the sampler
    drop_oldest     forget the oldest turns when the context is full, instead of an error
    speculate       tokens to guess in a step (`awq_ref.model.Speculation`); the answers stay the same
    """

    sampling: Sampling = GREEDY
    max_new_tokens: int | None = None
    system: str | None = None
    seed: int | None = 0
    drop_oldest: bool = False
    speculate: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens is not None:
            require_between("chat", "max_new_tokens", self.max_new_tokens, 1, 2**31)


@dataclass
class ChatStats:
    """Sums over a session: tokens by what was done with them, and seconds."""

    turns: int = 0
    prompt_tokens: int = 0  # of all prompts
    reused_tokens: int = 0  # of these, found in the cache
    new_tokens: int = 0
    prompt_seconds: float = 0.0
    new_seconds: float = 0.0

    @property
    def prompt_speed(self) -> float:
        """Tokens read per second, those from the cache not counted."""
        return (self.prompt_tokens - self.reused_tokens) / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def new_speed(self) -> float:
        """Tokens written per second, the first of each answer not counted: it comes with the prompt."""
        return max(self.new_tokens - self.turns, 0) / self.new_seconds if self.new_seconds else 0.0


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many ids two texts have in common at their start.

    Examples
    --------
    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for i, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return i
    return min(len(left), len(right))


def without_oldest_turn(messages: Sequence[Message]) -> list[Message]:
    """Return messages without the first turn: a user's message and all that follows, up to the user's next one.

    What stands before the first turn (a system prompt) stays. With one turn only, nothing changes.
    """
    turns = [i for i, message in enumerate(messages) if message["role"] == "user"]
    return [*messages[: turns[0]], *messages[turns[1] :]] if len(turns) > 1 else list(messages)


@dataclass
class ChatSession:
    """A conversation. `reply` adds a turn; `messages` may be read, and replaced as a whole by `restart`.

    Keys and values of the tokens read so far are kept: of the next prompt, what begins alike is not read again.
    """

    model: Model
    form: ChatFormat
    settings: ChatSettings = ChatSettings()
    messages: list[Message] = field(default_factory=list)
    stats: ChatStats = field(default_factory=ChatStats)
    dropped_turns: int = 0  # to make room for the last reply
    ending: str = ""  # why the last reply ended: "end", "length", "context", or "stopped"
    _cache: KVCache = field(init=False, repr=False)
    # The ids that were read; the first _cache.length of them are in the cache.
    _ids: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self.speculation = Speculation(self.settings.speculate)
        self._rng = np.random.default_rng(self.settings.seed)
        self._cache = new_cache(self.model.config, batch=1)
        self.restart(self.messages)
        # A template that is broken, or refuses a system prompt, says so now.
        self.form.ids([*self.messages, {"role": "user", "content": "."}])

    @property
    def context(self) -> int:
        """Tokens that fit into the model's context."""
        return self.model.config.context

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        return self._cache.length

    @property
    def cache_bytes(self) -> int:
        """Bytes that the cache of keys and values holds."""
        return self._cache.resident_bytes

    @property
    def end_tokens(self) -> set[int]:
        """What ends an answer: the model's end tokens, the tokenizer's, and what the template puts behind answers."""
        eos = self.model.require_tokenizer().eos_token_id
        return {*self.model.eos_token_ids, *([] if eos is None else [eos]), *self.form.end_tokens}

    @property
    def max_new_tokens(self) -> int:
        """Tokens of an answer at most."""
        given = self.settings.max_new_tokens
        return min(MOST_NEW_TOKENS, max(1, self.context // ANSWER_SHARE)) if given is None else given

    def restart(self, messages: Sequence[Message] = ()) -> None:
        """Begin anew: with these messages, or without any but the system prompt."""
        system = [] if self.settings.system is None else [{"role": "system", "content": self.settings.system}]
        self.messages = list(messages) or list(system)

    # ---- an answer ----

    def reply(self, text: str) -> Generator[str, None, None]:
        """Return the answer to a message, piece by piece.

        Whoever stops early closes the iterator; what had come stays in the conversation as the answer. If nothing had
        come, the conversation is what it was.

        Raises
        ------
        RangeError
            If the conversation does not fit into the context (with drop_oldest: the message alone does not).
        ChatTemplateError
            If the template refuses the conversation.
        """
        messages, ids = self._fitted([*self.messages, {"role": "user", "content": text}])
        return self._answer(messages, ids)

    def _fitted(self, messages: list[Message]) -> tuple[list[Message], I64]:
        """Return messages and their ids, with room for an answer."""
        room, dropped = min(self.max_new_tokens, self.context // ANSWER_SHARE), 0
        while True:
            ids = self.form.ids(messages)
            if len(ids) + (room if self.settings.drop_oldest else 1) <= self.context:
                self.dropped_turns = dropped
                return messages, ids
            shorter = without_oldest_turn(messages) if self.settings.drop_oldest else messages
            if len(shorter) == len(messages):
                raise RangeError(
                    f"chat: the conversation must fit the model's context of {self.context} tokens, with room for an "
                    f"answer; got {len(ids)}. /reset begins anew, --drop-oldest forgets the oldest turns by itself; "
                    "or write a shorter message."
                )
            messages, dropped = shorter, dropped + 1

    def _answer(self, messages: list[Message], ids: I64) -> Generator[str, None, None]:
        before, pieces = self.messages, [""]
        self.messages, self.ending = messages, "stopped"
        decoder = self.model.require_tokenizer().stream_decoder()
        try:
            with closing(self._tokens(ids)) as tokens:
                for token in tokens:
                    pieces.append(decoder.push(token))
                    if pieces[-1]:
                        yield pieces[-1]
            pieces.append(decoder.flush())
            if pieces[-1]:
                yield pieces[-1]
        finally:
            answer = "".join(pieces)
            answered = answer or self.ending != "stopped"
            self.messages = [*messages, {"role": "assistant", "content": answer}] if answered else before

    def _tokens(self, ids: I64) -> Generator[int, None, None]:
        """Yield the tokens of an answer; the cache follows."""
        room = min(self.max_new_tokens, self.context - len(ids))
        pick = sampler(self.settings.sampling, seed=self._rng, prompt=ids)
        step, ends, done = self._not_cached(ids), self.end_tokens, 0
        lookup, length = Lookup(ids.tolist() if self.settings.speculate else ()), len(ids)
        while done < room:
            started, before = time.perf_counter(), done
            most = min(self.settings.speculate, room - done - 1) if done else 0  # the prompt is read alone
            guesses = fitting(lookup.guess(most), self.model.config, length + done)
            for token in picked(self._read(step, guesses), guesses, pick):
                self._count(time.perf_counter() - started, ids, step, first=done == 0)
                if token in ends:
                    self.ending = "end"
                    return
                yield token
                started, done = time.perf_counter(), done + 1
                lookup.add(token)
            if before:
                self.speculation.count(len(guesses), done - before)
            self._cache = self._cache.truncated(self._cache.length - len(guesses) + done - before - 1)
            step = np.array([token], dtype=np.int64)
        self.ending = "length" if room == self.max_new_tokens else "context"

    def _not_cached(self, ids: I64) -> I64:
        """Return the ids that the cache does not hold, at least the last one; the cache is cut to the others."""
        kept = common_prefix(self._ids[: self._cache.length], ids.tolist())
        kept = min(kept, len(ids) - 1)
        if kept < self._cache.shortest or must_reread(self.model.config, self._cache.length, len(ids)):
            kept = 0
        self._cache = self._cache.truncated(kept)
        return ids[kept:]

    def _count(self, seconds: float, prompt: I64, step: I64, *, first: bool) -> None:
        """Add a token, and with the first one of an answer its prompt, to the sums."""
        stats = self.stats
        stats.new_tokens += 1
        if not first:
            stats.new_seconds += seconds
            return
        stats.turns += 1
        stats.prompt_seconds += seconds
        stats.prompt_tokens += len(prompt)
        stats.reused_tokens += len(prompt) - len(step)

    def _read(self, new: I64, guesses: list[int]) -> F32:
        """Return the logits that follow some more ids, and each guess: (guesses + 1, vocab_size).

        An interrupt leaves a cache that is right, if shorter.
        """
        ids = np.array([*new, *guesses], dtype=np.int64)
        del self._ids[self._cache.length :]
        if must_reread(self.model.config, self._cache.length, self._cache.length + len(ids)):
            ids = np.array([*self._ids, *ids], dtype=np.int64)
            self._ids, self._cache = [], self._cache.truncated(0)
        self._ids.extend(ids.tolist())  # first: what the cache does not know yet does not count
        logits, cache = self.model.decoder.forward(ids[None], self._cache, last_only=not guesses)
        assert cache is not None  # one was given
        self._cache = cache
        last: F32 = logits[0, -1 - len(guesses) :]
        return last


def with_sampling(settings: ChatSettings, **changes: float | None) -> ChatSettings:
    """Return settings with some fields of their sampling changed; None changes nothing (RangeError as `Sampling`)."""
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(settings, sampling=replace(settings.sampling, **given))  # type: ignore[arg-type]

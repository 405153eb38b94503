"""Pieces of text: they add up, hold no half character, and an id costs the same at the end of a long text."""

import pytest
from helpers.tiny_tokenizers import byte_fallback, byte_level, gemma, unigram
from hypothesis import given
from hypothesis import strategies as st

from awq_ref.errors import RangeError
from awq_ref.text import StreamDecoder, Tokenizer

KINDS = {"byte level": byte_level, "byte fallback": byte_fallback, "unigram": unigram, "gemma": gemma}


def test_a_character_comes_whole():
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(token) for token in tokenizer.encode("a🙂é", add_special_tokens=False)]
    assert pieces == ["a", "", "", "", "🙂", "", "é"]
    assert stream.flush() == ""


def test_half_a_character_at_the_end_comes_with_flush():
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    half = tokenizer.encode("🙂", add_special_tokens=False)[:2].tolist()
    assert [stream.push(token) for token in half] == ["", ""]
    assert stream.flush() == tokenizer.decode(half)
    assert stream.flush() == ""


def test_special_tokens_in_a_stream():
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder(skip_special_tokens=False)
    assert "".join(stream.push(token) for token in (256, 258)) == "ab</s>"
    assert [tokenizer.stream_decoder().push(token) for token in (258, 256)] == ["", "ab"]


@given(text=st.text(max_size=12))
def test_pieces_add_up_and_hold_no_half_character(text):
    tokenizer = Tokenizer(byte_level())
    stream = tokenizer.stream_decoder()
    pieces = [stream.push(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + stream.flush() == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def streamed(tokenizer, token_ids, **options):
    stream = tokenizer.stream_decoder(**options)
    return [*(stream.push(token) for token in token_ids), stream.flush()]


@given(token_ids=st.lists(st.integers(0, 260), max_size=24), skip=st.booleans())
def test_pieces_of_any_bytes_add_up(token_ids, skip):
    tokenizer = Tokenizer(byte_level())  # 259 and 260 are beyond its vocabulary
    pieces = streamed(tokenizer, token_ids, skip_special_tokens=skip)
    assert "".join(pieces) == tokenizer.decode(token_ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(st.sampled_from(["hello", " ", "  ", "</s>", "world", "é", "🙂", "\ufffd", ".", "<s>"]))
)
def test_pieces_of_any_text_add_up(kind, words):
    tokenizer = Tokenizer(KINDS[kind]())
    if kind in (
        "byte fallback",
        "gemma",
    ):  # U+FFFD itself is three bytes there, and cannot be told from wrong ones
        words = [word for word in words if word != "\ufffd"]
    token_ids = tokenizer.encode("".join(words)).tolist()
    for skip in (True, False):
        pieces = streamed(tokenizer, token_ids, skip_special_tokens=skip)
        assert "".join(pieces) == tokenizer.decode(token_ids, skip_special_tokens=skip)


def test_a_special_token_between_words_leaves_their_space():
    tokenizer = Tokenizer(byte_fallback())
    hello, end = tokenizer.inner.token_to_id("\u2581hello"), tokenizer.inner.token_to_id("</s>")
    assert streamed(tokenizer, [hello, end, end, hello]) == ["hello", "", "", " hello", ""]


def test_replacement_characters_that_are_meant_come_three_ids_late_not_at_the_end():
    tokenizer = Tokenizer(byte_level())
    token_ids = tokenizer.encode("\ufffd" * 20, add_special_tokens=False).tolist()  # three bytes each
    pieces = streamed(tokenizer, token_ids)
    assert "".join(pieces) == "\ufffd" * 20
    assert pieces[-1] == "\ufffd"


@pytest.mark.parametrize("kind", ["byte level", "byte fallback"])
def test_a_long_run_of_wrong_bytes_costs_no_more_per_id(kind):
    class Counting:
        def __init__(self, inner):
            self.inner, self.longest = inner, 0

        def decode(self, token_ids, **options):
            self.longest = max(self.longest, len(token_ids))
            return self.inner.decode(token_ids, **options)

        def is_silent(self, token_id, **options):
            return self.inner.is_silent(token_id, **options)

    tokenizer = Tokenizer(KINDS[kind]())
    wrong = tokenizer.inner.token_to_id("<0xFF>" if kind == "byte fallback" else "\xff")
    counting = Counting(tokenizer)
    stream = StreamDecoder(counting)
    pieces = [stream.push(wrong) for _ in range(1000)]
    assert "".join(pieces) + stream.flush() == "\ufffd" * 1000
    assert counting.longest <= 12  # the context and what three bytes leave open


def test_a_negative_id_is_refused():
    with pytest.raises(RangeError, match="at least 0; got -1"):
        Tokenizer(byte_level()).stream_decoder().push(-1)

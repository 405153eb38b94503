"""A conversation without a terminal: every answer is that of a model which reads the whole prompt anew."""

import pytest
from helpers.chat_template_cases import TEMPLATES
from helpers.tiny_checkpoint import write_tiny_family, write_tiny_llama

from awq_ref.errors import ChatTemplateError, RangeError
from awq_ref.pipeline import load_model
from awq_ref.pipeline.chat import (
    ChatSession,
    ChatSettings,
    common_prefix,
    with_sampling,
    without_oldest_turn,
)
from awq_ref.pipeline.chat_format import (
    PlainFormat,
    TemplateFormat,
)
from awq_ref.text import ChatTemplate, Sampling


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat") / "tiny"
    write_tiny_llama(folder, eos_token_id=None)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder)  # a context of 128 tokens; the tokenizer knows bytes and an end of text


@pytest.fixture
def plain(model):
    return PlainFormat(model.tokenizer)


def said(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def answer_of(model, form, messages, n_tokens):
    """What the model says to a conversation, read anew."""
    ids = model.generate(form.ids(messages), max_new_tokens=n_tokens, eos_token_ids=[256])
    return model.tokenizer.decode(ids)


def test_every_turn_is_answered_as_if_all_were_read_anew(model, plain):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=9))
    for text in ("def f(a):", "class A:", "x = 1"):
        want = answer_of(model, plain, [*session.messages, *said(("user", text))], 9)
        assert "".join(session.reply(text)) == want
        assert session.messages[-2:] == said(("user", text), ("assistant", want))
    assert len(session.messages) == 6


def test_what_begins_alike_is_not_read_again(model, plain, monkeypatch):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=4))
    first = plain.ids(said(("user", "hello"))).tolist()
    known = [
        *first,
        *model.generate(first, max_new_tokens=4, eos_token_ids=())[:3],
    ]  # the last one is not read
    forward, read = model.decoder.forward, []
    monkeypatch.setattr(
        type(model.decoder),
        "forward",
        lambda self, ids, *args, **options: (read.append(ids.shape[1]), forward(ids, *args, **options))[1],
    )
    list(session.reply("hello"))
    assert read == [5, 1, 1, 1]
    assert session.cached_tokens == 8
    prompt = plain.ids([*session.messages, *said(("user", "more"))]).tolist()
    list(session.reply("more"))
    alike = next((i for i, (one, other) in enumerate(zip(known, prompt, strict=False)) if one != other), 8)
    assert alike >= 5
    assert read[4:] == [len(prompt) - alike, 1, 1, 1]
    assert (session.stats.prompt_tokens, session.stats.reused_tokens) == (5 + len(prompt), alike)


def test_an_answer_that_is_stopped_stays_as_far_as_it_came(model, plain):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=20))
    pieces = session.reply("hello")
    came = [next(pieces), next(pieces)]
    pieces.close()
    assert session.ending == "stopped"
    assert session.messages == said(("user", "hello"), ("assistant", session.messages[-1]["content"]))
    assert session.messages[-1]["content"].startswith("".join(came))
    want = answer_of(model, plain, [*session.messages, *said(("user", "go on"))], 20)
    assert "".join(session.reply("go on")) == want


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_interrupt_within_the_network_leaves_a_conversation_that_goes_on(model, plain, monkeypatch, at):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=6))
    "".join(session.reply("before"))
    before = list(session.messages)
    forward, calls = model.decoder.forward, []

    def interrupted(self, *args, **kwargs):
        calls.append(1)
        result = forward(*args, **kwargs)  # the buffers are written, the result is lost
        if len(calls) == at + 1:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(type(model.decoder), "forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(session.reply("hello"))
    if at == 0:
        assert session.messages == before
    want = answer_of(model, plain, [*session.messages, *said(("user", "again"))], 6)
    assert "".join(session.reply("again")) == want


def test_an_end_token_ends_an_answer_and_is_not_printed(model, plain, monkeypatch):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=20))
    all_ids = model.generate(plain.ids(said(("user", "hello"))), max_new_tokens=6, eos_token_ids=())
    monkeypatch.setattr(ChatSession, "end_tokens", {all_ids[5]})
    first = all_ids.index(all_ids[5])
    assert "".join(session.reply("hello")) == model.tokenizer.decode(all_ids[:first])
    assert session.ending == "end"


def test_the_end_tokens_are_those_of_the_folder_and_the_tokenizer(tmp_path):
    write_tiny_llama(tmp_path, eos_token_id=3)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}', encoding="utf-8")
    model = load_model(tmp_path)
    assert model.eos_token_ids == (5, 6)
    assert ChatSession(model, PlainFormat(model.tokenizer)).end_tokens == {5, 6, 256}


def test_generate_ends_where_generation_config_says(tmp_path):
    write_tiny_llama(tmp_path, eos_token_id=None)
    without = load_model(tmp_path).generate([1, 2, 3], max_new_tokens=6)
    assert len(without) == 6
    end = without[3]
    (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {end}}}', encoding="utf-8")
    model = load_model(tmp_path)
    assert model.generate([1, 2, 3], max_new_tokens=6) == without[: without.index(end) + 1]
    assert model.generate([1, 2, 3], max_new_tokens=6, eos_token_ids=()) == without


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_windows_that_have_dropped_columns_are_read_again(tmp_path, family):
    """Past a window of few tokens one cannot go back to any length; a new conversation begins like the old one."""
    write_tiny_family(tmp_path, family, sliding_window=8, eos_token_id=None)
    model = load_model(tmp_path)
    form = PlainFormat(model.tokenizer)
    session = ChatSession(model, form, ChatSettings(max_new_tokens=8))
    for text in ("a" * 30, "b", "c"):
        want = answer_of(model, form, [*session.messages, *said(("user", text))], 8)
        assert "".join(session.reply(text)) == want
    session.restart()
    for text in ("a" * 20, "b" * 5):
        want = answer_of(model, form, [*session.messages, *said(("user", text))], 8)
        assert "".join(session.reply(text)) == want


def test_a_rope_that_changes_with_the_length_is_read_again(tmp_path):
    """A longrope turns all keys otherwise once a text exceeds 12 tokens: within an answer, between turns, and back."""
    factors = {"short_factor": [1.0] * 8, "long_factor": [3.0 + i for i in range(8)]}
    write_tiny_llama(
        tmp_path,
        eos_token_id=None,
        original_max_position_embeddings=12,
        rope_scaling={"type": "longrope", **factors},
    )
    model = load_model(tmp_path)
    form = PlainFormat(model.tokenizer)
    session = ChatSession(model, form, ChatSettings(max_new_tokens=9))
    assert len(form.ids(said(("user", "abcd")))) < 12
    for text in ("abcd", "ef"):
        want = answer_of(model, form, [*session.messages, *said(("user", text))], 9)
        assert "".join(session.reply(text)) == want
    session.restart()
    want = answer_of(model, form, said(("user", "abcd")), 9)
    assert "".join(session.reply("abcd")) == want


def test_equal_seeds_give_equal_conversations(model, plain):
    def conversation(seed):
        settings = ChatSettings(Sampling(1.5, repetition_penalty=1.2), max_new_tokens=8, seed=seed)
        session = ChatSession(model, plain, settings)
        return ["".join(session.reply(text)) for text in ("a", "b")]

    assert conversation(1) == conversation(1) != conversation(2)
    assert conversation(1)[0] != conversation(1)[1]


def test_an_answer_has_room_for_a_quarter_of_the_context(model, plain):
    session = ChatSession(model, plain)
    assert (session.context, session.max_new_tokens) == (128, 32)
    list(session.reply("hello"))
    assert session.ending == "length"
    assert session.stats.new_tokens == 32


def test_a_full_context_is_said_and_changes_nothing(model, plain):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=100))
    list(session.reply("x" * 60))
    assert session.ending == "context"
    before = list(session.messages)
    with pytest.raises(
        RangeError, match=r"context of 128 tokens, .*; got \d+\. /reset begins anew, --drop-oldest"
    ):
        session.reply("more" * 20)
    assert session.messages == before


def test_the_oldest_turns_are_forgotten_when_asked_for(model, plain):
    settings = ChatSettings(max_new_tokens=10, system="S", drop_oldest=True)
    session = ChatSession(model, plain, settings)
    forgotten = 0
    for letter in "abcdef":
        list(session.reply(letter * 25))
        forgotten += session.dropped_turns
    kept = [message["content"][0] for message in session.messages if message["role"] == "user"]
    assert kept == list("abcdef"[forgotten:])
    assert (
        3 < forgotten < 6
    )  # 26 bytes of a message, and 10 to 30 of an answer: two or three fit into 128 - 10
    assert session.messages[0] == {"role": "system", "content": "S"}
    want = answer_of(model, plain, session.messages[:-1], 10)
    assert session.messages[-1]["content"] == want
    with pytest.raises(RangeError, match="write a shorter message"):
        session.reply("e" * 130)


def test_a_restart_keeps_the_system_prompt_alone(model, plain):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=3, system="# code"))
    assert session.messages == said(("system", "# code"))
    first = "".join(session.reply("a"))
    session.restart()
    assert session.messages == said(("system", "# code"))
    assert "".join(session.reply("a")) == first
    assert session.stats.reused_tokens == session.stats.prompt_tokens // 2 - 1  # all but the last id
    session.restart(said(("user", "x"), ("assistant", "y")))
    assert session.messages == said(("user", "x"), ("assistant", "y"))


def test_a_template_speaks_up_when_the_session_begins(model):
    form = TemplateFormat(ChatTemplate(TEMPLATES["gemma"], "gemma", {"bos_token": ""}), model.tokenizer)
    with pytest.raises(ChatTemplateError, match="gemma: the template refuses .*: System role not supported"):
        ChatSession(model, form, ChatSettings(system="S"))
    session = ChatSession(model, form, ChatSettings(max_new_tokens=2))
    list(session.reply("hi"))
    text = "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"
    assert session.stats.prompt_tokens == len(text)  # a token per byte


def test_a_template_that_prints_nothing_is_named(model):
    form = TemplateFormat(ChatTemplate("{{ '' }}", "empty"), model.tokenizer)
    with pytest.raises(ChatTemplateError, match="empty: the template must print something"):
        ChatSession(model, form)


def test_speeds_leave_out_what_was_not_read_or_waited_for(model, plain):
    session = ChatSession(model, plain, ChatSettings(max_new_tokens=3))
    assert (session.stats.prompt_speed, session.stats.new_speed) == (0.0, 0.0)
    list(session.reply("hello"))
    stats = session.stats
    assert stats.prompt_speed == 5 / stats.prompt_seconds
    assert stats.new_speed == 2 / stats.new_seconds
    assert session.cache_bytes > 0


def test_small_parts():
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2
    turns = said(("system", "s"), ("user", "a"), ("assistant", "b"), ("tool", "c"), ("user", "d"))
    assert without_oldest_turn(turns) == said(("system", "s"), ("user", "d"))
    assert without_oldest_turn(turns[:2]) == turns[:2]
    changed = with_sampling(ChatSettings(Sampling(0.5, top_k=3)), temperature=0.7, top_p=None)
    assert changed.sampling == Sampling(0.7, top_k=3)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_guesses_change_no_answer(tmp_path, family):
    changes = {"sliding_window": 5} if family == "mistral" else {}
    write_tiny_family(tmp_path, family, eos_token_id=None, **changes)
    model, answers = load_model(tmp_path), []
    for guesses in (0, 4):
        settings = ChatSettings(Sampling(0.5), max_new_tokens=20, seed=3, drop_oldest=True, speculate=guesses)
        session = ChatSession(model, PlainFormat(model.tokenizer), settings)
        answers.append(["".join(session.reply(text)) for text in ("abcabcabc", "abc", "bca")])
    assert answers[0] == answers[1]
    told = session.speculation
    assert told.guessed > 0
    assert told.tokens == told.steps + told.accepted
    assert (
        session.stats.new_tokens == told.tokens + session.stats.turns
    )  # the first of an answer comes with the prompt

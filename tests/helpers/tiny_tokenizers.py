"""Tiny tokenizers, built in the test that uses them.

BYTES                 the characters that stand for bytes, by id
byte_level            a token per byte, "ab" merged, <s> put before a text, </s> known
gpt_2, qwen_2         the same, with the splitting of GPT-2 and of Qwen2
byte_fallback         spaces as U+2581, words and pieces, a token for each byte (Llama 2, Mistral)
gemma                 the same, without a space put before a text, and with line breaks as added tokens
unigram               pieces with scores, spaces as U+2581 (SentencePiece's unigram)
"""

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
SPACE = "\u2581"
# Qwen/Qwen2.5-0.5B, tokenizer.json
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level() -> tokenizers.Tokenizer:
    """A token per byte, a merged token "ab", <s> put before a text, </s> known."""
    vocabulary = {token: i for i, token in enumerate([*BYTES, "ab"])}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<s>", "</s>"])
    put_first(inner, "<s>")
    return inner


def gpt_2() -> tokenizers.Tokenizer:
    """Words, numbers and the rest apart."""
    inner = byte_level()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return inner


def qwen_2() -> tokenizers.Tokenizer:
    """Qwen2's expression, after NFC."""
    inner = byte_level()
    split = pre_tokenizers.Split(tokenizers.Regex(QWEN_2), behavior="isolated")
    byte_level_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level_alone])
    return inner


def put_first(inner: tokenizers.Tokenizer, token: str) -> None:
    inner.post_processor = processors.TemplateProcessing(
        single=f"{token} $A", special_tokens=[(token, inner.token_to_id(token))]
    )


def byte_fallback() -> tokenizers.Tokenizer:
    """The tokenizer.json of Llama 2, with 20 letters."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [SPACE, *"abcdehilnorstuw", "he", "ll", f"{SPACE}he", f"{SPACE}hell", f"{SPACE}hello"]
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *byte_tokens, *pieces])}
    merges = [("h", "e"), ("l", "l"), (SPACE, "he"), (f"{SPACE}he", "ll"), (f"{SPACE}hell", "o")]
    inner = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    inner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    inner.add_special_tokens([tokenizers.AddedToken(t, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    put_first(inner, "<s>")
    return inner


def gemma() -> tokenizers.Tokenizer:
    """The tokenizer.json of Gemma, with 20 letters."""
    inner = byte_fallback()
    inner.normalizer = normalizers.Replace(" ", SPACE)
    inner.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    inner.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    inner.add_tokens(
        [tokenizers.AddedToken(token, normalized=False) for token in ("\n", "\n\n", "<mask>", "<pad>")]
    )
    return inner


def unigram() -> tokenizers.Tokenizer:
    """Pieces with scores, as SentencePiece's unigram models have them."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), (SPACE, -2.0)]
    pieces += [(letter, -4.0 - 0.1 * i) for i, letter in enumerate("abcdehilnorstuw.,")]
    pieces += [(f"{SPACE}hello", -3.0), ("wor", -3.5), ("ld", -3.6)]
    inner = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    inner.decoder = decoders.Metaspace(prepend_scheme="always")
    inner.add_special_tokens(["<s>", "</s>"])
    return inner

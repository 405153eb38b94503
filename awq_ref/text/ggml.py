"""A tokenizer as the metadata of a GGUF file: the keys tokenizer.ggml.* that llama.cpp reads.

    GgmlTokenizer      the metadata, and what they cannot say
    PRE_TOKENIZERS     how a text is split before merging -> llama.cpp's name for it
    ggml_tokenizer     a model folder -> GgmlTokenizer

llama.cpp has no place for a pattern, only names of patterns that it knows. Where none of them is the tokenizer's, the
nearest is written and the outcome says so: token ids are right, a text may be cut into others.
Sources: ggml, docs/gguf.md; llama.cpp, src/llama-vocab.cpp.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.text.files import read_json_object, read_text_file
from awq_ref.text.tokenizer import Tokenizer

Metadata: TypeAlias = dict[str, bool | int | float | str | list[int] | list[str]]

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# The patterns of tokenizer.json's Split, "" for ByteLevel's own -> llama.cpp's name
PRE_TOKENIZERS: dict[tuple[str, ...], str] = {
    ("",): "gpt-2",
    (CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,): "llama-bpe",
    (CONTRACTIONS + r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST,): "qwen2",
}
NEAREST = "llama-bpe"
TAKES_WHOLE_WORDS = (
    "llama-bpe",
)  # "ignore_merges": a word that is a token is not put together from its parts


@dataclass(frozen=True)
class GgmlTokenizer:
    """metadata: tokenizer.ggml.* and tokenizer.chat_template; notes: what of the tokenizer they cannot say."""

    metadata: Metadata
    notes: tuple[str, ...] = ()


def _refuse(path: Path, what: str) -> None:
    raise UnsupportedError(
        f"{path}: a GGUF file must have a byte-level BPE tokenizer here, as GPT-2, Llama 3 and Qwen have; {what}. "
        "Convert this model with llama.cpp's own convert_hf_to_gguf.py."
    )


def _require_byte_level(path: Path, stored: Mapping[str, Any]) -> None:
    """Raise UnsupportedError unless the tokenizer is byte-level BPE, as llama.cpp's model "gpt2" is."""
    model, normalizer = stored.get("model") or {}, stored.get("normalizer")
    if model.get("type") != "BPE":
        _refuse(path, f"the model is {model.get('type')}")
    if (
        model.get("byte_fallback")
        or model.get("end_of_word_suffix")
        or model.get("continuing_subword_prefix")
    ):
        _refuse(path, "this one has a byte fallback, a prefix or a suffix of words")
    if normalizer is not None and normalizer.get("type") != "NFC":
        _refuse(path, f"the normalizer {normalizer.get('type')} has no place")
    if not any(part.get("type") == "ByteLevel" for part in _parts(stored)):
        _refuse(path, "the pre-tokenizer has no ByteLevel")


def _parts(stored: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the pre-tokenizers, one after the other."""
    outer = stored.get("pre_tokenizer") or {}
    return list(outer.get("pretokenizers", [])) if outer.get("type") == "Sequence" else [outer]


def _patterns(stored: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the patterns by which a text is split: a key of PRE_TOKENIZERS, or none of them."""
    found = []
    for part in _parts(stored):
        if part.get("type") == "ByteLevel":
            found += [""] if part.get("use_regex", True) else []
            found += ["add_prefix_space"] if part.get("add_prefix_space") else []
        elif part.get("type") == "Split":
            found.append(str((part.get("pattern") or {}).get("Regex")))
        else:
            found.append(str(part.get("type")))
    return tuple(found)


def _name(stored: Mapping[str, Any]) -> str | None:
    """Return llama.cpp's name for how a text is split and merged, or None."""
    name = PRE_TOKENIZERS.get(_patterns(stored))
    return name if (name in TAKES_WHOLE_WORDS) == bool(stored["model"].get("ignore_merges")) else None


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> tuple[list[str], list[int]]:
    """Return the text and the type of every row of the embedding."""
    texts, types = [f"[PAD{i}]" for i in range(vocab_size)], [UNUSED] * vocab_size
    for text, token in tokenizer.inner.get_vocab(with_added_tokens=True).items():
        texts[token], types[token] = text, NORMAL
    for token, added in tokenizer.inner.get_added_tokens_decoder().items():
        types[token] = CONTROL if added.special else USER_DEFINED
    return texts, types


def _merges(stored: Mapping[str, Any]) -> list[str]:
    """Return the merges as pairs with a space between; a file writes either these or lists of two."""
    merges = stored["model"].get("merges") or []
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def _ends(tokenizer: Tokenizer) -> Metadata:
    """Return the special tokens around a text, and whether they are put there."""
    around = tokenizer.encode("").tolist()
    found: Metadata = {}
    if tokenizer.bos_token_id is not None:
        found["tokenizer.ggml.bos_token_id"] = tokenizer.bos_token_id
    if tokenizer.eos_token_id is not None:
        found["tokenizer.ggml.eos_token_id"] = tokenizer.eos_token_id
    begins = around[:1] == [tokenizer.bos_token_id]
    found["tokenizer.ggml.add_bos_token"] = begins
    found["tokenizer.ggml.add_eos_token"] = around[int(begins) :] == [tokenizer.eos_token_id]
    return found


def ggml_tokenizer(folder: str | Path, vocab_size: int) -> GgmlTokenizer:
    """Return the tokenizer of a model folder as GGUF metadata.

    Raises
    ------
    FormatError
        If tokenizer.json is missing or cannot be read.
    UnsupportedError
        If it is not byte-level BPE; the message says what it is.
    """
    path = Path(folder) / "tokenizer.json"
    tokenizer = Tokenizer.load(folder)
    stored = json.loads(read_text_file(path))
    _require_byte_level(path, stored)
    if tokenizer.largest_id >= vocab_size:
        raise FormatError(
            f"{path}: ids must be below the embedding's {vocab_size} rows; got {tokenizer.largest_id}."
        )
    texts, types = _tokens(tokenizer, vocab_size)
    name = _name(stored)
    metadata: Metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name or NEAREST,
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": _merges(stored),
        **_ends(tokenizer),
    }
    template = read_json_object(Path(folder) / "tokenizer_config.json").get("chat_template")
    if isinstance(template, str):
        metadata["tokenizer.chat_template"] = template
    notes = []
    if name is None:
        notes.append(
            f"tokenizer: llama.cpp has no name for this pattern; {NEAREST!r} is written, and a text may be cut into "
            "other tokens. Give it token ids."
        )
    if stored.get("normalizer") is not None:
        notes.append("tokenizer: llama.cpp does not compose characters (NFC).")
    return GgmlTokenizer(metadata, tuple(notes))

"""Text to token ids and back: a thin layer over the `tokenizers` library.

    Tokenizer       encode, decode, the special tokens and their ids

Reads tokenizer.json, and the files beside it as transformers does: its post-processor alone says what is put before
and behind a text (`add_bos_token` of tokenizer_config.json is for tokenizers without this file); special tokens that
the other files name become special, and are added where they are missing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from awq_ref.dtypes import I64
from awq_ref.errors import FormatError, RangeError
from awq_ref.text.files import read_json_object
from awq_ref.text.streaming import StreamDecoder

# The special tokens that have a name, and that chat templates know by it.
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def _added_token(stored: Any, path: Path) -> tokenizers.AddedToken:
    """Return a token that a file writes out, or gives as its text alone."""
    if isinstance(stored, str):
        return tokenizers.AddedToken(stored, special=True, normalized=False)
    if not isinstance(stored, dict) or not isinstance(stored.get("content"), str):
        raise FormatError(
            f"{path}: a special token must be a text, or an object with content; got {stored!r}."
        )
    flags = {name: bool(stored[name]) for name in FLAGS if name in stored}
    return tokenizers.AddedToken(stored["content"], **flags)


def _stored_settings(folder: Path) -> dict[str, Any]:
    """Return tokenizer_config.json; where it lists no added tokens, with those of special_tokens_map.json."""
    settings = read_json_object(folder / "tokenizer_config.json")
    if "added_tokens_decoder" not in settings:
        settings |= read_json_object(folder / "special_tokens_map.json")
    return settings


def _extra_tokens(settings: dict[str, Any]) -> list[Any]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    return list(extra.values()) if isinstance(extra, dict) else list(extra)


def _add_tokens(inner: tokenizers.Tokenizer, settings: dict[str, Any], path: Path) -> dict[str, str]:
    """Make special what the settings name, and add what is missing; return the named tokens' texts."""
    listed = settings.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict) or not all(key.isdecimal() for key in listed):
        raise FormatError(f"{path}: added_tokens_decoder must map ids to tokens; got {listed!r:.80}.")
    tokens = {key: _added_token(listed[key], path) for key in sorted(listed, key=int)}
    known = {token.content: token for token in inner.get_added_tokens_decoder().values()}
    inner.add_tokens([token for token in tokens.values() if token.content not in known])
    known |= {token.content: token for token in tokens.values()}
    named = {name: _added_token(settings[name], path) for name in NAMED if settings.get(name) is not None}
    special = [*named.values(), *(_added_token(token, path) for token in _extra_tokens(settings))]
    inner.add_special_tokens([known.get(token.content, token) for token in special])
    return {name: token.content for name, token in named.items()}


def _special_id(inner: tokenizers.Tokenizer, named: dict[str, str], folder: Path, name: str) -> int | None:
    """Return the id of bos or eos: the token that has this name, else the id in config.json."""
    if f"{name}_token" in named:
        return inner.token_to_id(named[f"{name}_token"])
    value = read_json_object(folder / "config.json").get(f"{name}_token_id")
    found = value[0] if isinstance(value, list) and value else value
    return found if isinstance(found, int) else None


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model folder.

    bos_token_id, eos_token_id   None where the folder names none
    special_tokens               bos_token, eos_token, ...: the texts of those that have a name
    """

    inner: tokenizers.Tokenizer
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    special_tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read the tokenizer of a model folder.

        Raises
        ------
        FormatError
            If there is no tokenizer.json, or it (or a file beside it) cannot be read.
        """
        folder = Path(folder)
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise FormatError(
                f"{path}: the file must exist; it does not. Save the tokenizer in this "
                "format, e.g. with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
            )
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises this class itself
            raise FormatError(f"{path}: the file must be a tokenizer.json; {error}.") from error
        inner.no_truncation()  # settings of a training run may linger in the file
        inner.no_padding()
        named = _add_tokens(inner, _stored_settings(folder), folder / "tokenizer_config.json")
        bos, eos = (_special_id(inner, named, folder, name) for name in ("bos", "eos"))
        return cls(inner, bos, eos, named)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's vocab_size may be larger."""
        return int(self.inner.get_vocab_size(with_added_tokens=True))

    @cached_property
    def largest_id(self) -> int:
        """The largest id of a token, added ones included; -1 if there is none."""
        return max(self.inner.get_vocab(with_added_tokens=True).values(), default=-1)

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """The ids that skip_special_tokens leaves out."""
        added = self.inner.get_added_tokens_decoder()
        return frozenset(token_id for token_id, token in added.items() if token.special)

    def is_silent(self, token_id: int, *, skip_special_tokens: bool = True) -> bool:
        """Tell whether an id adds nothing to a text: a special one that is skipped, or one beyond the vocabulary."""
        if token_id < 0:
            return False  # decode says what is wrong with it
        return (skip_special_tokens and token_id in self.special_ids) or self.inner.id_to_token(
            token_id
        ) is None

    def encode(self, text: str, *, add_special_tokens: bool = True) -> I64:
        """Return the ids of a text, int64 (tokens,), with or without the special tokens around it."""
        encoding = self.inner.encode(text, add_special_tokens=add_special_tokens)
        return np.array(encoding.ids, dtype=np.int64)

    def decode(self, token_ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Return the text of some ids; bytes that are not UTF-8 become U+FFFD.

        Raises
        ------
        RangeError
            If an id is negative. (An id beyond the vocabulary, as a padded embedding allows, decodes to
            nothing.)
        """
        ids = [int(i) for i in token_ids]
        if ids and min(ids) < 0:
            raise RangeError(f"Tokenizer: token_ids must be at least 0; got {min(ids)}.")
        return str(self.inner.decode(ids, skip_special_tokens=skip_special_tokens))

    def stream_decoder(self, *, skip_special_tokens: bool = True) -> StreamDecoder:
        """Return a decoder for ids that come one by one."""
        return StreamDecoder(self, skip_special_tokens=skip_special_tokens)

"""Text to token ids and back: a thin layer over the `tokenizers` library.

    Tokenizer       encode, decode, the ids of the special tokens
    StreamDecoder   text of a growing list of ids, never half a character

Reads tokenizer.json; tokenizer_config.json and config.json, where present, say which tokens begin and end a
text.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from awq_ref.dtypes import I64
from awq_ref.errors import FormatError, RangeError

HALF_CHARACTER = "\ufffd"  # what bytes that are not UTF-8, or not yet, decode to


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file."""
    if not path.is_file():
        return {}
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{path}: the file must hold JSON; {error}.") from error
    if not isinstance(contents, dict):
        raise FormatError(f"{path}: the file must hold a JSON object; got {type(contents).__name__}.")
    return contents


def _special_id(inner: tokenizers.Tokenizer, folder: Path, name: str) -> int | None:
    """Return the id of bos or eos: the token named in tokenizer_config.json, else the id in config.json."""
    token = _read_json(folder / "tokenizer_config.json").get(f"{name}_token")
    if isinstance(token, dict):  # an added token written out
        token = token.get("content")
    found = inner.token_to_id(token) if isinstance(token, str) else None
    if found is None:
        value = _read_json(folder / "config.json").get(f"{name}_token_id")
        found = value[0] if isinstance(value, list) and value else value
    return found if isinstance(found, int) else None


@dataclass(frozen=True)
class Tokenizer:
    """The tokenizer of a model folder. bos_token_id and eos_token_id are None where the folder names none."""

    inner: tokenizers.Tokenizer
    bos_token_id: int | None = None
    eos_token_id: int | None = None

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read the tokenizer of a model folder.

        Raises
        ------
        FormatError
            If there is no tokenizer.json, or it (or a file beside it) cannot be read.
        """
        path = Path(folder) / "tokenizer.json"
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
        return cls(inner, *(_special_id(inner, Path(folder), name) for name in ("bos", "eos")))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included; a model's vocab_size may be larger."""
        return int(self.inner.get_vocab_size(with_added_tokens=True))

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

    def stream_decoder(self, *, skip_special_tokens: bool = True) -> "StreamDecoder":
        """Return a decoder for ids that come one by one."""
        return StreamDecoder(self, skip_special_tokens=skip_special_tokens)


@dataclass
class StreamDecoder:
    """Turns ids that come one by one into text that comes piece by piece.

    The pieces add up to the text of all ids. A piece is held back while it ends in the middle of a character.
    Ids are decoded together with the few before them, because a token's text may depend on what precedes it.
    """

    tokenizer: Tokenizer
    skip_special_tokens: bool = True
    context: list[int] = field(default_factory=list)  # ids already emitted, kept for what follows
    pending: list[int] = field(default_factory=list)  # ids not yet emitted

    def _text(self, token_ids: list[int]) -> str:
        return self.tokenizer.decode(token_ids, skip_special_tokens=self.skip_special_tokens)

    def _take(self) -> str:
        """Return the text of the pending ids, which become the context."""
        piece = self._text(self.context + self.pending)[len(self._text(self.context)) :]
        self.context, self.pending = self.pending, []
        return piece

    def push(self, token_id: int) -> str:
        """Take one more id; return the text that is now certain (often one word, sometimes nothing)."""
        self.pending.append(int(token_id))
        text = self._text(self.context + self.pending)
        return "" if text.endswith(HALF_CHARACTER) else self._take()

    def flush(self) -> str:
        """Return what was held back: the end of a text that stops within a character."""
        return self._take() if self.pending else ""

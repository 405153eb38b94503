"""What generation_config.json recommends: which tokens end a text, how to sample.

    GenerationDefaults   stop tokens and a `Sampling`, read from a model folder

The keys mean what they mean to transformers: without `do_sample` the largest logit wins, and who samples without a
`top_k` gets 50.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awq_ref.errors import FormatError, RangeError
from awq_ref.text.files import read_json_object
from awq_ref.text.sampling import GREEDY, Sampling

FILE = "generation_config.json"
TOP_K = 50  # of transformers, where the file samples and names none

# key -> type: what of the file becomes a field of Sampling
FIELDS: dict[str, type] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repetition_penalty": float,
}


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)


def _sampling(stored: dict[str, Any], path: Path) -> Sampling:
    """Return the settings of the file; temperature 0 unless it says do_sample."""
    given = {key: stored[key] for key in FIELDS if stored.get(key) is not None}
    for key, value in given.items():
        if not _is_number(value, FIELDS[key]):
            raise FormatError(
                f"{path}: {key} must be a number of type {FIELDS[key].__name__}; got {value!r}."
            )
    if stored.get("do_sample") is True:
        given = {"temperature": 1.0, "top_k": TOP_K} | given
    else:
        given["temperature"] = 0.0
    try:
        return Sampling(**given)
    except RangeError as error:
        raise FormatError(f"{path}: {error}") from error


def _stop_tokens(stored: dict[str, Any], path: Path) -> tuple[int, ...]:
    value = stored.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if not all(_is_number(token, int) and token >= 0 for token in ids):
        raise FormatError(f"{path}: eos_token_id must be a token id or a list of them; got {value!r}.")
    return tuple(ids)


@dataclass(frozen=True)
class GenerationDefaults:
    """eos_token_ids: the tokens that end a text, none where the file names none; sampling: how to choose a token."""

    eos_token_ids: tuple[int, ...] = ()
    sampling: Sampling = GREEDY

    @classmethod
    def load(cls, folder: str | Path) -> "GenerationDefaults":
        """Read generation_config.json of a model folder; without the file, the defaults.

        Raises
        ------
        FormatError
            If the file is not JSON, or a value has the wrong type or lies out of range.
        """
        path = Path(folder) / FILE
        stored = read_json_object(path)
        return cls(_stop_tokens(stored, path), _sampling(stored, path))

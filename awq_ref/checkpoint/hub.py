"""A model by its name on the Hugging Face hub: what is needed of it is downloaded, once.

resolve_model     a folder, or NAME or NAME@REVISION on the hub -> a folder
model_name        what a folder's model is called

`huggingface_hub` does the work: HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to it. It is
imported when a name is looked up, so that local folders need neither it nor the network.
"""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from awq_ref.errors import FormatError, HubError

# What is downloaded: what is read here, and what stays beside a model (`awq_ref.checkpoint.writer.SIDE_FILES`).
WANTED = (
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "quant_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template*.jinja",
    "chat_template*.json",
    "README.md",
    "LICENSE*",
    "NOTICE*",
)
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
# Folders hold exports for other programs; the two others are the same weights under other names, or not a model's.
UNWANTED = ("*/*", "consolidated*", "adapter_*")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")
WEIGHT_SUFFIXES = (*PICKLE_SUFFIXES, ".gguf", ".msgpack", ".h5", ".onnx", ".npz")
PICKLED = (
    "Pickles (.bin, .pt) can run code and are never read: load it with transformers where you trust it, write it with "
    "save_pretrained(FOLDER), and give FOLDER. Or look for a copy in safetensors."
)
ELSEWHERE = "Take the model from which these were made: it has safetensors as a rule. GGUF is llama.cpp's."

_PART = r"[A-Za-z0-9_](?:[\w.-]{0,94}[A-Za-z0-9_])?"
_NAME = re.compile(rf"((?:{_PART}/)?{_PART})(?:@([\w.-]+(?:/[\w.-]+)*))?", re.ASCII)
_CACHED = "models--"  # the cache keeps A/B under models--A--B/snapshots/COMMIT; no name has two dashes in it

_TOKEN = "accept its licence at {page} if it has one to accept, and set HF_TOKEN to a token of yours"
# HTTP status -> what came, what to try
_STATUS = {
    401: (
        "there is neither such a folder here nor such a model there, or it is private or gated and no valid token came",
        f"Check the spelling; {_TOKEN}",
    ),
    403: ("the model is private or gated, and no token came that may read it", f"Log in, {_TOKEN}"),
    404: ("there is neither such a folder here nor such a model there", "Check the spelling"),
    429: ("too many requests", "Wait some minutes; with HF_TOKEN set the limit is higher"),
}
_UNREACHABLE = ("ConnectError", "ConnectTimeout", "ConnectionError")  # httpx's names, and that of requests
_SERVER = ("the server failed", "Try again later; https://status.huggingface.co says more")


def _split(name: str) -> tuple[str, str | None] | None:
    """Return the name and the revision of NAME@REVISION; None for what cannot be on the hub."""
    found = _NAME.fullmatch(name)
    if found is None or ".." in name or "--" in found[1] or found[1].endswith(".git"):
        return None
    return found[1], found[2]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__


def _reason(error: BaseException, revision: str | None) -> tuple[str, str]:
    """Return what came and what to try, from what the library raised."""
    from huggingface_hub import constants

    chain = list(_causes(error))
    kinds = {kind.__name__ for one in chain for kind in type(one).__mro__}
    answers = (getattr(one, "response", None) for one in chain)
    status = next((answer.status_code for answer in answers if answer is not None), 0)
    if "RevisionNotFoundError" in kinds:
        return f"the model has no revision {revision}", "Give one of its branches, tags or commits, or none"
    if "GatedRepoError" in kinds:
        return _STATUS[403]
    if status in _STATUS or status >= 500:
        came, remedy = _STATUS.get(status, _SERVER)
        return f"{came} (HTTP {status})", remedy
    nowhere = "LocalEntryNotFoundError" in kinds or type(error).__name__ in _UNREACHABLE
    if "OfflineModeIsEnabled" in kinds or (nowhere and constants.HF_HUB_OFFLINE):
        return (
            "HF_HUB_OFFLINE is set, and the cache does not hold all of it",
            "Unset HF_HUB_OFFLINE, or HF_HOME if it is the wrong cache",
        )
    if nowhere:
        return (
            "the hub cannot be reached, and the cache does not hold all of it",
            "Check the network, HF_ENDPOINT and the proxy, or give a local folder",
        )
    said = (str(error).strip() or "no message").splitlines()[0].rstrip(".")
    return (
        f"the download broke off: {type(error).__name__}: {said}",
        "Run it again: it goes on with the files that are not complete",
    )


def _hub_error(name: str, revision: str | None, error: BaseException) -> HubError:
    """Return our error for one of the library's."""
    from huggingface_hub import constants

    came, remedy = _reason(error, revision)
    remedy = remedy.format(page=f"{constants.ENDPOINT}/{name}")
    return HubError(f"{name}: must be a model on the Hugging Face hub that can be read; {came}. {remedy}.")


def _require_safetensors(folder: Path, name: str, revision: str | None) -> None:
    """Raise HubError if no weights came: the model has none that are read here, or the cache lacks them."""
    from huggingface_hub import HfApi

    if any(folder.glob("*.safetensors")):
        return
    try:
        files = HfApi().list_repo_files(name, revision=revision)
    except Exception as error:  # of requests, httpx or httpx2: the versions of the library differ
        raise _hub_error(name, revision, error) from error
    others = [file for file in files if file.endswith(WEIGHT_SUFFIXES)]
    remedy = PICKLED if any(file.endswith(PICKLE_SUFFIXES) for file in others) else ELSEWHERE
    raise HubError(
        f"{name}: must have its weights in *.safetensors; it has {', '.join(others[:3]) or 'no weights'}. {remedy}"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from telling of every try of every file; HF_HUB_VERBOSITY=info lets it speak."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    if level >= logging.WARNING:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _progress() -> Iterator[type[Any]]:
    """Yield the library's progress bar, but drawn on a terminal only, and wiped off at the end."""
    from huggingface_hub.utils.tqdm import tqdm

    hidden, bars = not sys.stderr.isatty(), []

    class Bar(tqdm):
        def __init__(self, *positional: Any, **named: Any) -> None:
            options = named | {"leave": False, "disable": hidden}
            super().__init__(*positional, **options)  # type: ignore[no-untyped-call]
            bars.append(self)

    try:
        yield Bar
    finally:
        for bar in reversed(bars):
            bar.close()


def _download(name: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """Bring the files that match into the cache, and return the folder of their commit."""
    from huggingface_hub import snapshot_download

    try:
        with _quiet(), _progress() as bar:
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=[*UNWANTED, *(f"*{suffix}" for suffix in WEIGHT_SUFFIXES)],
                library_name="awq_ref",
                tqdm_class=bar,
            )
    except Exception as error:  # of requests, httpx, httpx2 or hf_xet: the versions of the library differ
        raise _hub_error(name, revision, error) from error
    return Path(folder)


def resolve_model(model: str | Path, *, weights: bool = True) -> Path:
    """Return the folder of a model, downloaded if it is a name on the hub.

    Parameters
    ----------
    model : str or Path
        A path, which wins if it exists; else NAME or NAME@REVISION on the hub, such as
        Qwen/Qwen2.5-0.5B-Instruct@main: a branch, a tag or a commit. A `Path` is never looked up there, nor is a
        string that begins as a path does: ./, ../, ~ or /.
    weights : bool
        Without them configuration and tokenizer are all that is downloaded.

    Returns
    -------
    folder : Path
        For a `Path` itself, whether it exists or not.

    Raises
    ------
    FormatError
        If a string is neither a path that exists nor a possible name.
    HubError
        If there is no such model or revision, it may not be read, the hub cannot be reached and the cache does not
        hold the model, the download breaks off, or the model has no safetensors.

    Notes
    -----
    What is complete in the cache is not downloaded again, and serves without the network too. Only `WANTED` and
    `WEIGHTS` are ever requested: no pickles, no code.
    """
    if isinstance(model, Path) or Path(model).exists():
        return Path(model)
    found = _split(model)
    if found is None:
        raise FormatError(
            f"{model}: there is no such folder, and it cannot be a name on the Hugging Face hub. Give a folder with "
            "config.json and *.safetensors, or a name such as Qwen/Qwen2.5-0.5B-Instruct or NAME@REVISION."
        )
    folder = _download(*found, WANTED + WEIGHTS if weights else WANTED)
    if weights:
        _require_safetensors(folder, *found)
    return folder


def model_name(folder: str | Path) -> str:
    """Return what a folder's model is called: its name on the hub if it lies in the hub's cache, else the folder's.

    Examples
    --------
    >>> model_name("/cache/models--Qwen--Qwen2.5-0.5B/snapshots/060db6499f32faf8b98477b0a26969ef7d8b9987")
    'Qwen/Qwen2.5-0.5B'
    >>> model_name("/models/my-model")
    'my-model'
    """
    folder = Path(folder).resolve()
    above = folder.parent.parent.name
    if folder.parent.name == "snapshots" and above.startswith(_CACHED):
        return above.removeprefix(_CACHED).replace("--", "/")
    return folder.name

"""A checkpoint folder: config.json, and the tensors of one or several safetensors files.

    read_json     a JSON object from a file, or one clear error
    Checkpoint    .open(folder), .config, .names, .info, .read, .read_stored, .raw, .check_complete

Never loads a pickle (.bin, .pt): a pickle can run code.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from awq_ref.checkpoint.declared import declared_quantization
from awq_ref.checkpoint.header import TensorInfo
from awq_ref.checkpoint.hub import resolve_model
from awq_ref.checkpoint.near import missing_tensor
from awq_ref.checkpoint.storage import FLOAT_DTYPES
from awq_ref.checkpoint.tensors import TensorFile
from awq_ref.checks import require_finite
from awq_ref.dtypes import F32, U8, AnyArray
from awq_ref.errors import DtypeError, FormatError, MissingTensorError, ShapeError

CONFIG = "config.json"
SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_SHARD = re.compile(r"[^/\\]+\.safetensors")  # a name, no path
# What a folder without safetensors may hold -> why it is not loaded, and what to do
OTHERS = {
    "pickles": (
        ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl"),
        "which can run code and are not loaded. Convert them where you trust them: load them with transformers, or "
        "with torch.load(FILE, weights_only=True), and write what comes with save_pretrained, or with "
        f"safetensors.torch.save_file, as {SINGLE_FILE}",
    ),
    "GGUF": (
        ("*.gguf",),
        "which llama.cpp reads and awq_ref does not. Take the model in safetensors, from which it was made",
    ),
    "arrays of other programs": (
        ("*.npz", "*.h5", "*.msgpack", "*.onnx"),
        f"which are not read. Take the model in safetensors, or write it with save_pretrained as {SINGLE_FILE}",
    ),
}


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file.

    Raises
    ------
    FormatError
        If the file cannot be read, is not UTF-8, is not JSON (says where), or holds no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: must be JSON; {error}. Compare it with the original.") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: must hold a JSON object; got {type(found).__name__}.")
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the model's configuration; say what is wrong with a folder that has none."""
    if not folder.is_dir():
        raise FormatError(
            f"{folder}: there is no such folder. Give a local folder with {CONFIG} and *.safetensors, or, as a "
            "string, the name of a model on the Hugging Face hub."
        )
    if not (folder / CONFIG).is_file():
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise FormatError(
            f"{folder}: has no {CONFIG}; found {found}. Give the folder that holds it and *.safetensors."
        )
    return read_json(folder / CONFIG)


def _weight_map(folder: Path) -> dict[str, str]:
    """Return the index of a sharded checkpoint: tensor name -> file name, all of them in the folder."""
    weight_map = read_json(folder / INDEX_FILE).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(f"{folder / INDEX_FILE}: must hold a weight_map from tensor names to file names.")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not _SHARD.fullmatch(file):
            raise FormatError(
                f"{folder / INDEX_FILE}: {name!r} must lie in a .safetensors file of this folder; "
                f"got {file!r}."
            )
    for file, count in Counter(weight_map.values()).items():
        if not (folder / file).is_file():
            raise MissingTensorError(
                f"{folder}: has no shard {file}, which {INDEX_FILE} names for {count} tensors. Download it "
                "again."
            )
    return weight_map


def _open_shards(folder: Path) -> dict[str, TensorFile]:
    """Return the file of each tensor of a sharded checkpoint."""
    weight_map = _weight_map(folder)
    files = {file: TensorFile(folder / file) for file in sorted(set(weight_map.values()))}
    names_in = {file: frozenset(opened.names) for file, opened in files.items()}
    for name, file in weight_map.items():
        if name not in names_in[file]:
            raise missing_tensor(f"{folder / file} (named by {INDEX_FILE})", [name], names_in[file])
    return {name: files[file] for name, file in weight_map.items()}


def _open_files(folder: Path) -> dict[str, TensorFile]:
    """Return the file of each tensor: from the single file if there is one, by the index, or from the only file."""
    if (folder / SINGLE_FILE).is_file():
        single = TensorFile(folder / SINGLE_FILE)
        return dict.fromkeys(single.names, single)
    if (folder / INDEX_FILE).is_file():
        return _open_shards(folder)
    only = sorted(folder.glob("*.safetensors"))
    if len(only) == 1:  # AutoGPTQ's gptq_model-4bit-128g.safetensors, and the like
        single = TensorFile(only[0])
        return dict.fromkeys(single.names, single)
    for kind, (patterns, remedy) in OTHERS.items():
        found = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
        if found:
            raise FormatError(f"{folder}: has weights only as {kind} ({', '.join(found[:3])}), {remedy}.")
    raise FormatError(f"{folder}: has neither {SINGLE_FILE} nor {INDEX_FILE}. Is the download complete?")


class Checkpoint:
    """A folder with a model: its configuration, and its tensors by name, read one at a time.

    Make one with `Checkpoint.open`. Nothing but headers is read until a tensor is asked for.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        files: dict[str, TensorFile],
        stored_names: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.config = config
        self._files = files
        self._stored_names = stored_names or {}  # of tensors that have another name in their file

    def renamed(self, rename: Callable[[str], str]) -> "Checkpoint":
        """Return the same checkpoint with its tensors under other names, by a function that keeps them apart."""
        stored = {rename(name): self._stored_names.get(name, name) for name in self._files}
        files = {rename(name): file for name, file in self._files.items()}
        return Checkpoint(self.folder, self.config, files, stored)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all tensors, sorted."""
        return tuple(sorted(self._files))

    @property
    def files(self) -> tuple[Path, ...]:
        """The safetensors files that hold the tensors, sorted."""
        return tuple(sorted({file.path for file in self._files.values()}))

    @property
    def quantization_config(self) -> dict[str, Any] | None:
        """What the checkpoint says about how its weights are stored; None for a float one.

        Raises
        ------
        FormatError
            If it is not a JSON object, or is said twice and differently (`declared_quantization`).
        """
        return declared_quantization(self.folder, self.config, read_json)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def _file(self, name: str) -> tuple[TensorFile, str]:
        """Return the file that holds a tensor, and the tensor's name in it."""
        if name not in self._files:
            raise missing_tensor(str(self.folder), [name], self._files)
        return self._files[name], self._stored_names.get(name, name)

    def info(self, name: str) -> TensorInfo:
        """Return storage dtype, shape and byte range of a tensor (MissingTensorError with near names)."""
        file, stored = self._file(name)
        return file.info(stored)

    def raw(self, name: str) -> U8:
        """Return a tensor's bytes as they are stored, a read-only view of the mapped file."""
        file, stored = self._file(name)
        return file.raw(stored)

    def read_stored(self, name: str) -> AnyArray:
        """Return a tensor in the dtype it is stored in (bfloat16 and F8_E4M3 as float32), values unchecked."""
        file, stored = self._file(name)
        return file.read(stored)

    def read(self, name: str, *, rows: slice | None = None) -> F32:
        """Return a tensor of floats as float32, checked to be finite; with rows, only those of axis 0.

        Raises
        ------
        MissingTensorError
            If the checkpoint has no such tensor; near names are listed.
        DtypeError
            If it does not hold floats.
        RangeError
            If it holds a NaN or an infinity: names the tensor and the index (within rows, when given).
        """
        file, stored = self._file(name)
        values = file.read_float32(stored, rows=rows)
        require_finite(str(file.path), stored, values)
        return values

    def check_complete(
        self, expected: Mapping[str, tuple[int, ...]], *, dtypes: Iterable[str] = FLOAT_DTYPES
    ) -> None:
        """Check, from the headers alone, that every expected tensor is there, its shape and its dtype.

        Parameters
        ----------
        expected : mapping from name to shape
        dtypes : storage names, by default those of floats

        Raises
        ------
        MissingTensorError
            If tensors are missing: names them, and names near the first.
        ShapeError
            If a tensor has another shape.
        DtypeError
            If a tensor is stored as none of dtypes.
        """
        missing = [name for name in expected if name not in self._files]
        if missing:
            raise missing_tensor(str(self.folder), missing, self._files)
        allowed = tuple(dtypes)
        for name, shape in expected.items():
            info = self.info(name)
            if info.shape != tuple(shape):
                raise ShapeError(
                    f"{self.folder}: {name} must have shape {tuple(shape)} by {CONFIG}; the file holds "
                    f"{info.shape}. Do {CONFIG} and the weights belong together?"
                )
            if info.dtype not in allowed:
                raise DtypeError(
                    f"{self.folder}: {name} must be stored as {' or '.join(allowed)}; it is {info.dtype}. "
                    "Is this checkpoint quantized in a form that awq_ref does not read?"
                )

    @classmethod
    def open(cls, model: str | Path) -> "Checkpoint":
        """Open a folder, or a name on the hub (`resolve_model`): read its configuration and its files' headers.

        Raises
        ------
        FormatError
            If there is no such folder, no config.json, no safetensors file (only pickles, or nothing), or one
            of them is damaged.
        MissingTensorError
            If the index names a shard, or a tensor in a shard, that is not there.
        HubError
            If it is a name on the hub and cannot be had from there.
        """
        folder = resolve_model(model)
        config = _read_config(folder)
        return cls(folder, config, _open_files(folder))

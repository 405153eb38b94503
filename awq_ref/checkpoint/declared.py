"""Where a folder says how its weights are stored: in config.json, or in the file that first versions of a tool wrote.

    declared_quantization   folder and config.json -> the quantization_config, or None

Sources: AutoAWQ 0.1 (quant_config.json), AutoGPTQ (quantize_config.json), mlx-lm ("quantization"), compressed-tensors
("compression_config", its older name).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from awq_ref.checkpoint.mlx_config import METHOD
from awq_ref.errors import FormatError

LEGACY = {
    "quant_config.json": "awq",
    "quantize_config.json": "gptq",
}  # beside config.json -> their quant_method
NAMES = ("quantization_config", "compression_config")
MLX = "quantization"


def _object(place: str, found: Any) -> dict[str, Any] | None:
    if found is not None and not isinstance(found, dict):
        raise FormatError(f"{place} must be an object; got {type(found).__name__}.")
    return found


def _legacy(folder: Path, read_json: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    files = [name for name in LEGACY if (folder / name).is_file()]
    if len(files) > 1:
        raise FormatError(
            f"{folder}: must have one of {' and '.join(files)}; got both. Remove the wrong one."
        )
    return {"quant_method": LEGACY[files[0]]} | read_json(folder / files[0]) if files else None


def declared_quantization(
    folder: Path, config: Mapping[str, Any], read_json: Callable[[Path], dict[str, Any]]
) -> dict[str, Any] | None:
    """Return what a folder says about its stored weights; None for a float one.

    Parameters
    ----------
    folder : Path
    config : the folder's config.json
    read_json : reads a JSON object from a file

    Raises
    ------
    FormatError
        If it is not a JSON object, or is said twice and differently.

    Notes
    -----
    MLX writes "quantization", and the same again as quantization_config, without a quant_method.
    """
    named = {key: _object(f"{folder}: {key} in config.json", config.get(key)) for key in (*NAMES, MLX)}
    found = next((named[key] for key in NAMES if named[key] is not None), None)
    mlx = named[MLX]
    if found is not None and "quant_method" in found:
        return found
    if mlx is not None and found not in (None, mlx):
        raise FormatError(
            f"{folder}: {MLX} and quantization_config in config.json must say the same; got {mlx} and {found}."
        )
    if mlx is not None:
        return {"quant_method": METHOD} | mlx
    return found if found is not None else _legacy(folder, read_json)

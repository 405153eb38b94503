"""The small files beside a model's weights.

read_json_object   a JSON file that holds an object
read_text_file     a text file, UTF-8
"""

import json
from pathlib import Path
from typing import Any

from awq_ref.errors import FormatError


def read_text_file(path: Path) -> str:
    """Return the text of a file (FormatError if it cannot be read or is not UTF-8)."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: the file must be UTF-8 text; byte {error.start} is not.") from error
    except OSError as error:
        raise FormatError(f"{path}: the file must be readable; {error.strerror or error}.") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if there is no such file.

    Raises
    ------
    FormatError
        If the file holds no JSON, or something else than an object.
    """
    if not path.is_file():
        return {}
    try:
        contents = json.loads(read_text_file(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{path}: the file must hold JSON; {error}.") from error
    if not isinstance(contents, dict):
        raise FormatError(f"{path}: the file must hold a JSON object; got {type(contents).__name__}.")
    return contents

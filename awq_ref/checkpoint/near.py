"""The message for a tensor that is not there: its name, and the names that come near it."""

import difflib
from collections.abc import Iterable, Sequence

from awq_ref.errors import MissingTensorError

SHOWN = 3


def missing_tensor(where: str, missing: Sequence[str], names: Iterable[str]) -> MissingTensorError:
    """Return the error that names the first missing tensors, and near names for the first of them."""
    near = difflib.get_close_matches(missing[0], list(names), n=SHOWN)
    shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else "")
    hint = f"Near names: {', '.join(near)}." if near else "No name comes near it: is this the right model?"
    return MissingTensorError(f"{where}: has no tensor {shown}. {hint}")

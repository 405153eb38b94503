"""The model that ships inside the package.

verify_folder      every file of a manifest is there, with the right SHA-256
demo_model_path    the embedded model's folder, verified
"""

import hashlib
from pathlib import Path

from awq_ref.errors import FormatError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
DEMO_MODEL = "demo_model"
DIGEST_CHARS = 64
PIECE_BYTES = 1024 * 1024


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _read_manifest(manifest: Path) -> dict[str, str]:
    """Return file name -> digest from lines of "digest  name", as sha256sum writes them."""
    digests: dict[str, str] = {}
    for line in manifest.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != DIGEST_CHARS or not name or Path(name).name != name:
            raise FormatError(
                f"{manifest}: each line must be a SHA-256, two spaces and a file name; got {line!r}."
            )
        digests[name] = digest.lower()
    return digests


def verify_folder(folder: Path, manifest: Path) -> None:
    """Check every file that a manifest names.

    Parameters
    ----------
    folder : Path
        Holds the files.
    manifest : Path
        Lines of "digest  name".

    Raises
    ------
    FormatError
        If manifest or a file is missing, the manifest is malformed, or a file has other contents.
    """
    if not manifest.is_file():
        raise FormatError(f"{manifest}: is missing. Install awq_ref again.")
    for name, digest in _read_manifest(manifest).items():
        if not (folder / name).is_file():
            raise FormatError(
                f"{folder / name}: is missing, though {manifest.name} lists it. Install awq_ref again."
            )
        if _sha256(folder / name) != digest:
            raise FormatError(
                f"{folder / name}: its contents are not those that were shipped (SHA-256 differs). "
                "Install awq_ref again."
            )


def demo_model_path() -> Path:
    """Return the folder of the embedded model, every file checked (FormatError as `verify_folder`)."""
    verify_folder(ASSETS / DEMO_MODEL, ASSETS / f"{DEMO_MODEL}.sha256")
    return ASSETS / DEMO_MODEL

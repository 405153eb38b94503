"""Build the wheel and check what ships: the package with its embedded model and types, and nothing else.

python tools/check_wheel.py
"""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(folder: Path) -> Path:
    """Build the wheel into a folder; return its path."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--quiet",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def expected_files() -> set[str]:
    """Return the files of the package that belong into the wheel."""
    files = (path for path in (ROOT / "awq_ref").rglob("*") if path.is_file())
    names = {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    return {name for name in names if "/." not in name}  # caches of tools


def main() -> int:
    """Compare, and say what differs."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = build(Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if ".dist-info/" not in name}
            meta = {name for name in archive.namelist() if ".dist-info/" in name}
            scripts = next(name for name in meta if name.endswith("entry_points.txt"))
            has_command = re.search(
                r"^awq-ref ?= ?awq_ref\.cli:main$", archive.read(scripts).decode(), re.MULTILINE
            )
        problems = [f"missing: {name}" for name in sorted(expected_files() - names)]
        problems += [f"should not ship: {name}" for name in sorted(names - expected_files())]
        problems += [] if has_command else ["no command awq-ref"]
        problems += [] if any(name.endswith("licenses/LICENSE") for name in meta) else ["no LICENSE"]
        print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB")
    print("\n".join(problems) or "the wheel holds what it should")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write awq_ref/vectors/v1 from the oracles.

Released vectors never change: run this only to add cases (with a new version) or before the first release. Where a file
that exists would become another one, nothing is written unless --force is given.
"""

import argparse
import shutil

from awq_ref.vectors.catalog import make_cases
from awq_ref.vectors.files import files_of
from awq_ref.vectors.store import RELEASED, write_files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--force", action="store_true", help="overwrite files that differ")
    arguments = parser.parse_args()
    files = files_of(make_cases())
    changed = [name for name, data in files.items() if _differs(name, data)]
    if changed and not arguments.force:
        print(f"{len(changed)} files would change, {changed[0]} first; --force writes them")
        return 1
    if RELEASED.exists():
        shutil.rmtree(RELEASED)
    write_files(RELEASED, files)
    print(f"{RELEASED}: {len(files)} files, {sum(map(len, files.values())) / 1e6:.2f} MB")
    return 0


def _differs(name: str, data: bytes) -> bool:
    path = RELEASED / name
    return path.is_file() and path.read_bytes() != data


if __name__ == "__main__":
    raise SystemExit(main())

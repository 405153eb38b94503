"""Run every witness whose package is installed, keep its record, and write
awq_ref/vectors/schema/PROVENANCE.md and the tables of docs/conformance.md.

PYTHONPATH=tests python tools/write_witnesses.py
"""

import json
import sys

from helpers.witnesses import CONFORMANCE, FOLDER, PAGE, importable, provenance, run_witness, with_table


def main() -> int:
    failed = False
    for name in importable():
        record = run_witness(name)
        print(f"{record['name']} {record['version']}: {sum(record['passed'].values())} cases confirmed")
        for case, message in record["failed"].items():
            print(f"  {case}: {message}", file=sys.stderr)
        failed |= bool(record["failed"])
        path = FOLDER / "records" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(provenance(), encoding="utf-8")
    CONFORMANCE.write_text(with_table(CONFORMANCE.read_text(encoding="utf-8")), encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

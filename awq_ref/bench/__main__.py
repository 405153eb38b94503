"""The process that `awq_ref.bench.run` starts: one job, given as JSON; what was measured, as JSON.

Its processors are chosen before NumPy is imported, for BLAS counts them then.
"""

import json
import os
import sys


def main() -> None:
    """Do what the first argument says: {"limits": threads} or the fields of a Job."""
    given = json.loads(sys.argv[1])
    threads = given.get("limits") or given["threads"]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if "limits" in given:
        from awq_ref.bench.limits import measure_limits

        found = measure_limits(threads)
    else:
        from awq_ref.bench.job import Job
        from awq_ref.bench.measure import run_job

        found = run_job(Job(**given))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

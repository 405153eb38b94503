"""What of a quantization is kept, block by block, so that the same call can go on after it was stopped.

    identity_of    what must be equal for a finished block to be a block of this run
    FinishedBlocks what earlier runs have finished, and what this one adds

A block counts when its line is in the journal. Before that line its tensors are in the writer's spool, its report and
the hidden states that enter the next block in files of their own, all synced, and the line has their checksums.
"""

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from awq_ref import __version__
from awq_ref.checkpoint import Journal, ShardWriter
from awq_ref.checkpoint.disk import byte_view, file_digest, sync, writing
from awq_ref.errors import OutputError
from awq_ref.pipeline.block_output import Job
from awq_ref.pipeline.states import StateStore
from awq_ref.pipeline.statistics import ModelStatistics
from awq_ref.report.quantization import LayerReport, QuantizationReport
from awq_ref.spec import StateDtype


def _source_facts(job: Job) -> dict[str, Any]:
    """Return what tells one state of the source from another without reading its weights."""
    files = {}
    for path in job.checkpoint.files:
        about = path.stat()
        files[path.name] = {"bytes": about.st_size, "modified_ns": about.st_mtime_ns}
    return {"config": job.checkpoint.config, "files": files}


def _digest(statistics: ModelStatistics) -> str:
    digest = hashlib.sha256()
    for site, seen in sorted(statistics.sites.items()):
        digest.update(f"{site} {seen.count} ".encode())
        digest.update(byte_view(np.ascontiguousarray(seen.abs_sum)))
        digest.update(byte_view(np.ascontiguousarray(seen.gram_sum)))
    return digest.hexdigest()


def identity_of(
    job: Job,
    *,
    calibration: dict[str, Any],
    statistics: ModelStatistics | None,
    activations: StateDtype,
    max_shard_bytes: int,
) -> dict[str, Any]:
    """Return all that the bytes of the output depend on: source, recipe, grid, tokens, versions."""
    return {
        "awq_ref": __version__,
        "numpy": np.__version__,
        "source": _source_facts(job),
        "recipe": asdict(job.recipe),
        "spec": asdict(job.spec),
        "layout": job.layout,
        "calibration": calibration,
        "statistics": None if statistics is None else _digest(statistics),
        "activations": activations,
        "max_shard_bytes": max_shard_bytes,
    }


class FinishedBlocks:
    """The blocks of a run that are done, in order; a context manager around the writer of their tensors.

    Parameters
    ----------
    journal : Journal
    store : StateStore
        Takes the checksums of the hidden states from which to go on.
    empty : QuantizationReport
        Without layers: what the reports of single blocks are saved with.
    max_shard_bytes : int

    Raises
    ------
    OutputError
        If a file of an earlier run is not what the journal says.
    """

    def __init__(
        self, journal: Journal, store: StateStore, empty: QuantizationReport, *, max_shard_bytes: int
    ) -> None:
        self._journal, self._store, self._empty = journal, store, empty
        entries = journal.finished
        states = [entry["writer"] for entry in entries]
        self._digests = [str(entry["report"]) for entry in entries]
        self.reports()  # what cannot be read is found before any work is done
        self.writer = ShardWriter(
            journal.model, max_shard_bytes=max_shard_bytes, work=journal.folder, states=states
        )
        if entries:
            store.sums |= entries[-1]["states"]

    def _path(self, layer: int) -> Path:
        return self._journal.folder / f"report-{layer:05d}"

    def _load(self, layer: int, digest: str) -> LayerReport:
        path = self._path(layer)
        if file_digest(path).hexdigest() != digest:
            raise OutputError(
                f"{path}: must be as an earlier run left it; its checksum differs. Begin anew (--restart, "
                "restart=True)."
            )
        return QuantizationReport.load(path).layers[0]

    @property
    def count(self) -> int:
        """How many blocks are done."""
        return len(self._digests)

    def reports(self) -> tuple[LayerReport, ...]:
        """Read the reports of all blocks that are done. In memory they would grow with the model: a clip per group."""
        return tuple(self._load(layer, digest) for layer, digest in enumerate(self._digests))

    def add(self, report: LayerReport) -> None:
        """Put down that a block is done: its tensors are with the writer, the states after it in the store."""
        path = self._path(report.layer)
        with writing(path):
            replace(self._empty, layers=(report,)).save(path)
            sync(path)
        states = self._store.kept(report.layer + 1)
        for name in states:
            with writing(path):
                sync(path.with_name(name))
        self._digests.append(file_digest(path).hexdigest())
        entry = {"writer": self.writer.state(), "states": states, "report": self._digests[-1]}
        self._journal.commit(entry)
        self.writer.drop_spools()
        self._store.forget(report.layer)

    def __enter__(self) -> "FinishedBlocks":
        return self

    def __exit__(self, *error: Any) -> None:
        self.writer.__exit__(*error)

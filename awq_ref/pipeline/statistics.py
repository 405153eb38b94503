"""Statistics of a whole model, made once and used for every bit width, group size and recipe.

    ModelStatistics   the statistics of all sites, with a fingerprint of the tokens; save, load
    calibrate         folder and text -> ModelStatistics

The statistics are those of the float model.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awq_ref.calibration import SiteStatistics, load_statistics, save_statistics
from awq_ref.pipeline.load import open_tokenizer
from awq_ref.pipeline.observation import open_float
from awq_ref.pipeline.texts import Calibration, calibration_windows
from awq_ref.pipeline.walk import observed_blocks
from awq_ref.report.progress import progress


@dataclass(frozen=True)
class ModelStatistics:
    """The statistics of every site of a model: `sites["LAYER.SITE"]`, and which tokens they come from."""

    sites: dict[str, SiteStatistics]
    calibration: dict[str, Any]

    def of_layer(self, layer: int) -> dict[str, SiteStatistics]:
        """Return site -> statistics of one layer."""
        start = f"{layer}."
        return {name[len(start) :]: found for name, found in self.sites.items() if name.startswith(start)}

    def save(self, path: str | Path) -> None:
        """Write them to one safetensors file."""
        save_statistics(path, self.sites, source=self.calibration)

    @classmethod
    def load(cls, path: str | Path) -> "ModelStatistics":
        """Read what `save` wrote; FormatError if the file is something else."""
        return cls(*load_statistics(path))


def calibrate(
    source: str | Path,
    *,
    calibration: Calibration = None,
    samples: int = 128,
    seq_len: int = 512,
    shown: bool | None = None,
) -> ModelStatistics:
    """Observe a float model on calibration text and return the statistics of all its sites.

    With them `quantize_model(..., statistics=...)` searches at any bit width without another forward pass.

    Parameters
    ----------
    source : str or Path
        Float checkpoint folder, or its name on the hub.
    calibration : files (Path), texts (str), ids (windows, seq), or None
        None: the calibration part of the standard library's source.
    samples, seq_len : int
        How many windows, of how many tokens; a model with a shorter context gets windows of that length.
    shown : bool, optional
        Draw a progress bar; by default on a terminal only.

    Raises
    ------
    CorpusError, FormatError, HubError, MissingTensorError, RangeError, UnsupportedError
        As `quantize_model`.
    """
    checkpoint, config = open_float(source)
    windows, fingerprint = calibration_windows(
        open_tokenizer(checkpoint.folder, config),
        calibration,
        samples=samples,
        seq_len=min(seq_len, config.max_position_embeddings),
        vocab_size=config.vocab_size,
    )
    sites: dict[str, SiteStatistics] = {}
    blocks = observed_blocks(checkpoint, config, windows)
    n_layers = config.num_hidden_layers
    for layer in progress(range(n_layers), total=n_layers, label="calibrate", unit="block", shown=shown):
        statistics = next(blocks).observations.statistics
        sites |= {f"{layer}.{site}": entry for site, entry in statistics.items()}
    return ModelStatistics(sites, fingerprint)

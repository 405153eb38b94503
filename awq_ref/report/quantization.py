"""What a quantization did, site by site: a record that can be saved, loaded and printed.

    LayerReport          the sites of one block
    QuantizationReport   all of them, with the recipe, the grid and the calibration

Saved as one safetensors file: arrays as tensors, everything else as JSON in its metadata.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from awq_ref.errors import FormatError
from awq_ref.report.tables import format_table
from awq_ref.search import SiteReport
from awq_ref.spec import QuantSpec

FORMAT = "awq_ref.quantization_report.v1"


@dataclass(frozen=True)
class LayerReport:
    """The sites of decoder block number `layer`."""

    layer: int
    sites: tuple[SiteReport, ...]


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize_model` did.

    recipe           name of the recipe
    spec             the grid: bits, group size, ...
    layout           how the integers are packed on disk
    calibration      fingerprint of the calibration tokens: source, windows, seq_len, sha256
    layers           per block, per site: alphas tried, loss of each, the choice, channel scales, clips, RTN's loss
    bits_per_weight  of the quantized linears, scales and zero points counted
    seconds          wall time; of the last call, where an earlier one was stopped
    predicted_bytes  the peak of memory that was expected, and
    peak_bytes       the largest resident set that the process, and those of an executor, have had
    """

    recipe: str
    spec: QuantSpec
    layout: str
    calibration: dict[str, Any]
    layers: tuple[LayerReport, ...]
    bits_per_weight: float
    seconds: float = 0.0
    predicted_bytes: int = 0
    peak_bytes: int = 0

    def sites(self) -> Iterator[tuple[int, SiteReport]]:
        """Yield (layer, site report) in the order of the data."""
        for layer in self.layers:
            for site in layer.sites:
                yield layer.layer, site

    def table(self) -> str:
        """Return a Markdown table: one row per site, losses relative to round-to-nearest."""
        rows = [
            [f"{layer} {site.site}", f"{site.alpha:.2f}", f"{site.loss_rtn:.3e}", *_gains(site)]
            for layer, site in self.sites()
        ]
        return format_table(
            ["site", "alpha", "loss RTN", "scaled / RTN", "clipped / RTN", "rounded / RTN"], rows
        )

    def save(self, path: str | Path) -> None:
        """Write the report to one safetensors file, whole or not at all."""
        arrays: dict[str, np.ndarray] = {}
        document = {
            "format": FORMAT,
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("layers", "spec")},
            "spec": asdict(self.spec),
            "layers": [
                {"layer": x.layer, "sites": [_site_out(s, f"{x.layer}.{s.site}", arrays) for s in x.sites]}
                for x in self.layers
            ],
        }
        partial = Path(f"{path}.partial")
        # safetensors refuses a file without tensors; RTN has none to keep.
        save_file(
            arrays or {"empty": np.zeros(0, dtype=np.uint8)},
            partial,
            metadata={"report": json.dumps(document)},
        )
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> "QuantizationReport":
        """Read a report that `save` wrote; FormatError if the file is something else."""
        try:
            with safe_open(path, framework="numpy") as file:
                document = json.loads((file.metadata() or {}).get("report", "{}"))
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (OSError, SafetensorError, json.JSONDecodeError) as error:
            raise FormatError(f"QuantizationReport.load: {path} must be a saved report; {error}.") from error
        if document.pop("format", None) != FORMAT:
            raise FormatError(f"QuantizationReport.load: {path} must be in format {FORMAT}; it is not.")
        layers = tuple(
            LayerReport(
                x["layer"], tuple(_site_in(s, f"{x['layer']}.{s['site']}", arrays) for s in x["sites"])
            )
            for x in document.pop("layers")
        )
        spec = QuantSpec(**document.pop("spec"))
        return cls(spec=spec, layers=layers, **document)


def _gains(site: SiteReport) -> list[str]:
    """Return as text the shares of RTN's loss that scaling, clipping and error feedback leave; a dash for none."""
    losses = (site.loss_scaled, site.loss_clipped, site.loss_rounded)
    return ["-" if loss is None or site.loss_rtn == 0 else f"{loss / site.loss_rtn:.3f}" for loss in losses]


def _site_out(site: SiteReport, key: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Move the arrays of a site report to `arrays`; return the rest as JSON-ready values."""
    out: dict[str, Any] = {}
    for item in fields(site):
        value = getattr(site, item.name)
        if isinstance(value, np.ndarray):
            arrays[f"{key}.{item.name}"] = np.ascontiguousarray(value)
        elif item.name == "clips":
            arrays |= {f"{key}.clips.{name}": np.ascontiguousarray(clip) for name, clip in value.items()}
        else:
            out[item.name] = value
    return out


def _site_in(values: dict[str, Any], key: str, arrays: dict[str, np.ndarray]) -> SiteReport:
    """Rebuild a site report from what `_site_out` made of it."""
    tuples = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    found = {name[len(key) + 1 :]: array for name, array in arrays.items() if name.startswith(f"{key}.")}
    clips = {name[len("clips.") :]: array for name, array in found.items() if name.startswith("clips.")}
    plain = {name: array for name, array in found.items() if not name.startswith("clips.")}
    return SiteReport(**{**values, **tuples, **plain, "clips": clips})

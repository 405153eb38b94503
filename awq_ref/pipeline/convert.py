"""A quantized checkpoint folder becomes the same model in another layout.

    convert_model      the whole job
    ConversionReport   which linears are the same, which were rounded, and by how much

Every other tensor is copied byte by byte. No weight is quantized anew: `awq_ref.pipeline.refit`. An embedding or a head
of integers stays so in mlx alone; elsewhere it becomes float32, the same numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from awq_ref import __version__
from awq_ref.checkpoint import (
    MAX_SHARD_BYTES,
    Checkpoint,
    QuantizationConfig,
    ShardWriter,
    copy_side_files,
    model_card,
    model_name,
    new_folder,
    output_config,
    require_new,
    source_license,
    write_json,
    write_text,
)
from awq_ref.checks import require_one_of
from awq_ref.errors import UnsupportedError
from awq_ref.model import ModelConfig
from awq_ref.pack import FOLDER_LAYOUTS, LAYOUTS
from awq_ref.pipeline.refit import Refitted, refit
from awq_ref.pipeline.stored import TABLE_LAYOUTS, open_quantization, read_integers
from awq_ref.quantize import dequantize_linear
from awq_ref.spec import QuantSpec


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    source, layout : the layouts before and after
    linears        : how many modules are integers afterwards
    rounded        : name -> largest change of a weight, relative to the module's largest weight
    """

    source: str
    layout: str
    linears: int
    rounded: dict[str, float]

    def text(self) -> str:
        """Return what a person wants to know."""
        exact, n_rounded = self.linears - len(self.rounded), len(self.rounded)
        lines = [
            f"{self.source} -> {self.layout}: {self.linears} linears, {exact} exact, {n_rounded} rounded"
        ]
        if self.rounded:
            worst = max(self.rounded, key=self.rounded.__getitem__)
            lines.append(
                f"largest change of a weight, relative to its layer's largest: {self.rounded[worst]:.2e}, in {worst}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Source:
    """What is read: the checkpoint, what it says of its integers, and which modules are integers."""

    checkpoint: Checkpoint
    quantization: QuantizationConfig
    modules: tuple[str, ...]
    outer: tuple[str, ...]  # embedding and head

    @classmethod
    def open(cls, source: str | Path) -> "_Source":
        checkpoint = Checkpoint.open(source)
        found = open_quantization(checkpoint)
        if not isinstance(found, QuantizationConfig):
            raise UnsupportedError(
                f"{checkpoint.folder}: convert must have a checkpoint of integers; this one holds floats. Quantize it "
                "first: awq-ref quantize."
            )
        end = f".{LAYOUTS[found.layout].scales}"
        modules = tuple(name.removesuffix(end) for name in checkpoint.names if name.endswith(end))
        family = ModelConfig.from_json(checkpoint.config).family
        return cls(checkpoint, found, modules, (family.embed_tokens, family.lm_head))

    def tables(self, layout: str) -> list[str]:
        """Return the modules that become floats in a layout."""
        return [] if layout in TABLE_LAYOUTS else [module for module in self.modules if module in self.outer]

    def ignored(self, layout: str) -> list[str]:
        """Return the modules that the new configuration must call float."""
        left = [name for name, own in self.quantization.overrides.items() if own is None]
        is_float = [
            name
            for name in self.outer[1:]
            if name not in self.modules and f"{name}.weight" in self.checkpoint
        ]
        names = [*self.quantization.ignored, *left, *self.tables(layout), *is_float]
        return list(dict.fromkeys(names))

    def copy_rest(self, writer: ShardWriter) -> None:
        """Copy every tensor that is no part of a module of integers."""
        row = LAYOUTS[self.quantization.layout]
        specs = (QuantSpec(), QuantSpec(symmetric=True))
        ends = {*row.optional, *(end for spec in specs for end in row.tensor_names(spec))}
        taken = {f"{module}.{end}" for module in self.modules for end in ends}
        for name in self.checkpoint.names:
            if name not in taken:
                info = self.checkpoint.info(name)
                writer.add_raw(name, info.dtype, info.shape, self.checkpoint.raw(name))


def _require_same(module: str, first: QuantSpec | None, spec: QuantSpec, layout: str) -> None:
    if first is not None and spec != first:
        raise UnsupportedError(
            f"convert: {layout} must have the same bits, groups and symmetry in all modules; {module} has {spec}, "
            f"others {first}. Modules that differ cannot be written yet."
        )


def _refitted(source: _Source, layout: str, *, allow_rounding: bool) -> Iterator[tuple[str, Refitted]]:
    """Yield modules of integers in the new layout; refuse what is not the same unless that is allowed."""
    first: QuantSpec | None = None
    tables = source.tables(layout)
    for module in source.modules:
        if module in tables:
            continue
        try:
            done = refit(read_integers(source.checkpoint, module, source.quantization), layout)
        except UnsupportedError as error:
            raise UnsupportedError(f"{module}: {error}") from error
        spec = replace(done.linear.spec, scale_dtype="float16")  # no format says it
        _require_same(module, first, spec, layout)
        first = spec
        if not done.is_exact and not allow_rounding:
            raise UnsupportedError(
                f"{module}: convert must keep every weight, and {layout} would change some by up to "
                f"{done.max_error:.3g} (of {done.max_abs:.3g}). Allow it with allow_rounding=True, --allow-rounding."
            )
        yield module, done


def _write_weights(
    source: _Source, layout: str, writer: ShardWriter, *, allow_rounding: bool
) -> tuple[QuantSpec, int, dict[str, float]]:
    """Write all tensors; return the spec of the linears, how many they are, and which were rounded."""
    source.copy_rest(writer)
    for module in source.tables(layout):
        weight = dequantize_linear(read_integers(source.checkpoint, module, source.quantization))
        writer.add(f"{module}.weight", weight)
    spec, count, rounded = source.quantization.spec, 0, dict[str, float]()
    for module, done in _refitted(source, layout, allow_rounding=allow_rounding):
        spec, count = done.linear.spec, count + 1
        if not done.is_exact:
            rounded[module] = done.max_error / done.max_abs
        for end, array in done.tensors.items():
            writer.add(f"{module}.{end}", array)
    return spec, count, rounded


def _write_papers(
    source: _Source, folder: Path, name: str, spec: QuantSpec, report: ConversionReport
) -> None:
    """Write config.json, tokenizer and generation files, and the model card."""
    checkpoint = source.checkpoint
    record = {"version": __version__, "recipe": "convert", "source_layout": report.source}
    ignored = source.ignored(report.layout)
    written = output_config(checkpoint.config, spec, report.layout, ignored=ignored, record=record)
    write_json(folder / "config.json", written)
    copy_side_files(checkpoint.folder, folder)
    card = model_card(
        name,
        base_model=model_name(checkpoint.folder),
        spec=spec,
        layout=report.layout,
        recipe=f"as in the source ({report.source}); {len(report.rounded)} of {report.linears} linears rounded",
        calibration="none",
        version=__version__,
        license_name=source_license(checkpoint.folder),
    )
    write_text(folder / "README.md", card)


def convert_model(
    source: str | Path,
    destination: str | Path,
    *,
    layout: str,
    allow_rounding: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> ConversionReport:
    """Write a quantized checkpoint in another layout.

    Parameters
    ----------
    source : str or Path
        Folder of a quantized checkpoint, or its name on the hub.
    destination : str or Path
        Folder to write; it must not exist, and appears when it is complete.
    layout : one of `awq_ref.pack.FOLDER_LAYOUTS`
    allow_rounding : bool
        Take the nearest grid where the layout cannot hold the one that is there; else that is an error.
    max_shard_bytes : int
        Size at which a new safetensors file begins.

    Returns
    -------
    report : ConversionReport

    Raises
    ------
    RangeError
        If the layout is unknown.
    UnsupportedError
        If the source holds floats, a linear does not fit the layout, modules differ, or weights would change.
    FormatError, MissingTensorError, DtypeError
        If the source is damaged.
    OutputError
        If the destination exists or cannot be written; nothing is left behind.
    """
    require_one_of("convert", "layout", layout, FOLDER_LAYOUTS)
    require_new(Path(destination))
    opened = _Source.open(source)
    with new_folder(destination) as folder:
        with ShardWriter(folder, max_shard_bytes=max_shard_bytes) as writer:
            spec, count, rounded = _write_weights(opened, layout, writer, allow_rounding=allow_rounding)
        report = ConversionReport(opened.quantization.layout, layout, count, rounded)
        _write_papers(opened, folder, Path(destination).name, spec, report)
    return report

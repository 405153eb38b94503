"""What goes beside the weights of a quantized model.

write_papers   config.json, what is copied from the source, the model card
"""

from pathlib import Path

from awq_ref import __version__
from awq_ref.checkpoint import (
    Checkpoint,
    copy_side_files,
    model_card,
    model_name,
    output_config,
    source_license,
    write_json,
    write_text,
)
from awq_ref.model import ModelConfig, block_prefix, block_router_shapes
from awq_ref.report.quantization import QuantizationReport


def _float_modules(config: ModelConfig) -> list[str]:
    """Return the modules with a matrix that stays in float."""
    layers = range(config.num_hidden_layers)
    routers = [f"{block_prefix(config, n)}{name}" for n in layers for name in block_router_shapes(config, n)]
    return [*config.family.kept_linears(), *routers]


def write_papers(
    checkpoint: Checkpoint, config: ModelConfig, folder: Path, name: str, report: QuantizationReport
) -> None:
    """Write config.json, tokenizer and generation files, and the model card of a quantized model called `name`."""
    record = {"version": __version__, "recipe": report.recipe, "calibration": report.calibration}
    ignored = _float_modules(config)
    written = output_config(checkpoint.config, report.spec, report.layout, ignored=ignored, record=record)
    copy_side_files(checkpoint.folder, folder)
    seen = report.calibration
    card = model_card(
        name,
        base_model=model_name(checkpoint.folder),
        spec=report.spec,
        layout=report.layout,
        recipe=report.recipe,
        calibration=(
            f"{seen['windows']} windows of {seen['seq_len']} tokens, {seen['source']}, sha256 {seen['sha256']}"
            if seen
            else "none"
        ),
        version=__version__,
        license_name=source_license(checkpoint.folder),
    )
    write_text(folder / "README.md", card)
    write_json(folder / "config.json", written)  # last: before it the folder is no model

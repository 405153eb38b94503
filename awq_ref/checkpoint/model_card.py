"""The README.md of a written checkpoint: what the Hub reads, and what a person wants to know.

source_license    the licence that the source's own README names
model_card        the text
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from awq_ref.spec import QuantSpec

README = "README.md"


def source_license(folder: Path) -> str | None:
    """Return the licence in the front matter of a model's README.md, e.g. "apache-2.0", or None."""
    readme = Path(folder) / README
    if not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    front_matter = re.match(r"---\r?\n(.*?)\r?\n---", text, flags=re.DOTALL)
    found = front_matter and re.search(r"^license: *[\"']?([\w.+-]+)", front_matter[1], flags=re.MULTILINE)
    return found[1] if found else None


def _front_matter(fields: Mapping[str, str | Sequence[str]]) -> list[str]:
    """Return YAML lines; a JSON string is a YAML string."""
    lines = ["---"]
    for key, value in fields.items():
        if isinstance(value, str):
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
        else:
            lines += [f"{key}:", *(f"- {json.dumps(item, ensure_ascii=False)}" for item in value)]
    return [*lines, "---"]


def model_card(
    name: str,
    *,
    base_model: str,
    spec: QuantSpec,
    layout: str,
    recipe: str,
    calibration: str,
    version: str,
    license_name: str | None = None,
    results: str = "",
) -> str:
    """Return the text of a model card: YAML front matter, how the integers came about, results, how to run.

    Parameters
    ----------
    name, base_model : str
        Of the quantized model, and of the float one.
    spec, layout, recipe : what made the integers and how they are stored
    calibration : str
        What the activations were observed on, with the fingerprint of the statistics.
    version : str
        Of awq_ref.
    license_name : str, optional
        Of the source: a quantized model carries it on.
    results : str, optional
        Markdown, usually a table of perplexities.
    """
    fields: dict[str, str | Sequence[str]] = {"base_model": base_model, "base_model_relation": "quantized"}
    if license_name is not None:
        fields["license"] = license_name
    fields |= {"pipeline_tag": "text-generation", "tags": ["awq", f"{spec.bits}-bit", "awq_ref"]}
    group = "one group per row" if spec.group_size == -1 else f"groups of {spec.group_size}"
    kind = "symmetric" if spec.symmetric else "asymmetric"
    lines = [
        *_front_matter(fields),
        "",
        f"# {name}",
        "",
        f"Weights of {base_model}, quantized by awq_ref {version}.",
        "",
        "| | |",
        "|---|---|",
        f"| bits | {spec.bits}, {kind}, {group} |",
        f"| recipe | {recipe}, range rule {spec.range_rule} |",
        f"| layout | {layout} |",
        f"| calibration | {calibration} |",
        "",
    ]
    lines += ["## Results", "", results.strip(), ""] if results else []
    lines += ["## Use", "", "    awq-ref generate FOLDER --prompt ...", ""]
    return "\n".join(lines)

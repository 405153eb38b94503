"""AWQ quantization and int4 inference in NumPy that one can read.

    load_model        a checkpoint folder, float or quantized, becomes a model
    quantize_model    a float checkpoint folder becomes a quantized one
    calibrate         observe a model once; search at any bit width afterwards
    QuantSpec         bits, group size, symmetric or not

The rooms: text, model, calibration, search, quantize, pack, matmul, checkpoint, report; `awq_ref.pipeline` joins
them. The mathematics (quantize, pack, matmul, search) imports with NumPy alone, so the names above are loaded when
they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from awq_ref.pipeline import Model, calibrate, load_model, quantize_model
    from awq_ref.report.quantization import QuantizationReport
    from awq_ref.spec import QuantSpec

__all__ = [
    "Model",
    "QuantSpec",
    "QuantizationReport",
    "__version__",
    "calibrate",
    "load_model",
    "quantize_model",
]

_HOMES = {
    "Model": "awq_ref.pipeline",
    "QuantSpec": "awq_ref.spec",
    "QuantizationReport": "awq_ref.report.quantization",
    "calibrate": "awq_ref.pipeline",
    "load_model": "awq_ref.pipeline",
    "quantize_model": "awq_ref.pipeline",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its room on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'awq_ref' has no attribute {name!r}")

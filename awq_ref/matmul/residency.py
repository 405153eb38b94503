"""How a quantized layer stays in memory: the user's choice, always visible.

RESIDENCIES   "packed" (spec.bits per weight), "codes" (8), "dense" (32)
to_operator   a QuantizedLinear as the LinearOperator of that residency
"""

from typing import Literal, TypeAlias, get_args

from awq_ref.checks import require_one_of
from awq_ref.matmul.columns import fits
from awq_ref.matmul.dense import DenseLinear
from awq_ref.matmul.packed import PackedLinear
from awq_ref.quantize.affine import dequantize_linear
from awq_ref.spec import QuantizedLinear

Residency: TypeAlias = Literal["packed", "codes", "dense"]
RESIDENCIES: tuple[Residency, ...] = get_args(Residency)


def why_not_packed(linear: QuantizedLinear) -> str | None:
    """Return why to_operator holds this layer as codes although "packed" was asked for, or None."""
    return fits(linear.in_features, linear.group_size, linear.spec.bits)


def to_operator(
    linear: QuantizedLinear, residency: Residency = "packed", *, n_threads: int | None = None
) -> PackedLinear | DenseLinear:
    """Return the operator that multiplies by this layer.

    Parameters
    ----------
    linear : QuantizedLinear
    residency : "packed", "codes" or "dense"
        "packed" becomes "codes" where a group does not fill whole bytes (why_not_packed says why); both become
        "dense" where every weight has a scale of its own, for nothing would be saved. The operator's own
        .residency tells which it is.
    n_threads : int or None
        Threads for a large packed layer; None: one per processor this process may use.

    Returns
    -------
    operator : PackedLinear or DenseLinear

    Raises
    ------
    RangeError
        If residency is another word.
    """
    require_one_of("to_operator", "residency", residency, RESIDENCIES)
    if residency == "dense" or linear.group_size == 1:
        return DenseLinear(dequantize_linear(linear), linear.bias)
    if residency == "packed" and why_not_packed(linear):
        residency = "codes"
    return PackedLinear.from_quantized(linear, residency=residency, n_threads=n_threads)

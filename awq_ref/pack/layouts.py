"""The layouts in which files keep a quantized linear: one row of LAYOUTS each.

    LAYOUTS         name -> Layout
    why_not         the reason why a layout cannot hold a linear, or None
    pack_linear     QuantizedLinear -> arrays, keyed by the end of the tensor's name
    unpack_linear   the exact inverse

A bias is no part of a layout: whoever writes the file stores it beside the tensors.
To add a layout: a module with its two functions, a row here, its golden words in the tests.
Sources: AutoAWQ ("gemm"); compressed-tensors ("pack-quantized").
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from awq_ref.checks import require_one_of
from awq_ref.dtypes import AnyArray
from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.pack import gemm, pack_quantized
from awq_ref.spec import QuantizedLinear, QuantSpec


@dataclass(frozen=True)
class Layout:
    """One layout: how a quantized linear becomes the tensors of a file, and back.

    name           what configuration files call it
    bits           the bit widths that it can hold
    tensor_names   spec -> the tensor names' ends that it writes and requires
    obstacle       (out_features, in_features, spec) -> why this linear does not fit, or None
    pack, unpack   the two directions
    """

    name: str
    bits: tuple[int, ...]
    tensor_names: Callable[[QuantSpec], tuple[str, ...]]
    obstacle: Callable[[int, int, QuantSpec], str | None]
    pack: Callable[[QuantizedLinear], dict[str, AnyArray]]
    unpack: Callable[[Mapping[str, AnyArray], QuantSpec], QuantizedLinear]

    def why_not(self, out_features: int, in_features: int, spec: QuantSpec) -> str | None:
        """Return the reason why this layout cannot hold such a linear, or None if it can."""
        if spec.bits not in self.bits:
            return f"{self.name} holds {' or '.join(map(str, self.bits))} bits, not {spec.bits}"
        if spec.group_size != -1 and in_features % spec.group_size:
            return f"in_features={in_features} is no multiple of group_size={spec.group_size}"
        return self.obstacle(out_features, in_features, spec)


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout("gemm", (4,), gemm.tensor_names, gemm.obstacle, gemm.pack, gemm.unpack),
        Layout(
            "pack-quantized",
            (2, 3, 4, 8),
            pack_quantized.tensor_names,
            pack_quantized.obstacle,
            pack_quantized.pack,
            pack_quantized.unpack,
        ),
    )
}


def why_not(layout: str, out_features: int, in_features: int, spec: QuantSpec) -> str | None:
    """Return the reason why a layout cannot hold a linear of this size, or None if it can.

    Raises
    ------
    RangeError
        If layout is not a key of LAYOUTS.
    """
    require_one_of("why_not", "layout", layout, LAYOUTS)
    return LAYOUTS[layout].why_not(out_features, in_features, spec)


def pack_linear(linear: QuantizedLinear, layout: str) -> dict[str, AnyArray]:
    """Return the tensors that keep a quantized linear in a file.

    Parameters
    ----------
    linear : QuantizedLinear
        Its bias is left out.
    layout : str
        A key of LAYOUTS.

    Returns
    -------
    tensors : dict of str to array
        Keyed by the end of the tensor's name:
        gemm: qweight int32 (in, out / 8), qzeros int32 (n_groups, out / 8), scales float16 (n_groups, out);
        pack-quantized: weight_packed int32 (out, ceil(in * bits / 32)), weight_scale (out, n_groups),
        weight_zero_point int32 (ceil(out * bits / 32), n_groups) unless symmetric, weight_shape int64 (2,).

    Raises
    ------
    RangeError
        If layout is not a key of LAYOUTS.
    UnsupportedError
        If the layout cannot hold this linear; the message says why.
    FormatError
        If a symmetric linear has a zero point other than 2**(bits-1).
    """
    who = "pack_linear"
    require_one_of(who, "layout", layout, LAYOUTS)
    reason = LAYOUTS[layout].why_not(linear.out_features, linear.in_features, linear.spec)
    if reason is not None:
        raise UnsupportedError(
            f"{who}: the layout must be able to hold the linear; {reason}. Try another layout."
        )
    if linear.spec.symmetric and (linear.zero_point != linear.spec.symmetric_zero_point).any():
        raise FormatError(
            f"{who}: a symmetric linear must have the zero point {linear.spec.symmetric_zero_point}; "
            f"got {linear.zero_point.min()} to {linear.zero_point.max()}. Describe it as asymmetric."
        )
    return LAYOUTS[layout].pack(linear)


def unpack_linear(tensors: Mapping[str, AnyArray], spec: QuantSpec, layout: str) -> QuantizedLinear:
    """Return the quantized linear that a file's tensors hold: the inverse of `pack_linear`, bit for bit.

    Parameters
    ----------
    tensors : mapping of str to array
        Keyed by the end of the tensor's name, as `pack_linear` returns them.
    spec : QuantSpec
        From the file's configuration; scale_dtype is the dtype of the scales given.
    layout : str
        A key of LAYOUTS.

    Returns
    -------
    linear : QuantizedLinear
        Without a bias.

    Raises
    ------
    RangeError
        If layout is not a key of LAYOUTS.
    FormatError
        If a tensor is missing or unknown to the layout, has a wrong dtype or shape, or holds values that the
        configuration excludes; the tensor is named.
    """
    who = "unpack_linear"
    require_one_of(who, "layout", layout, LAYOUTS)
    row = LAYOUTS[layout]
    if spec.bits not in row.bits:
        raise FormatError(
            f"{who}: {layout} must have {' or '.join(map(str, row.bits))} bits; got {spec.bits}."
        )
    names = row.tensor_names(spec)
    missing, unknown = sorted(set(names) - set(tensors)), sorted(set(tensors) - set(names))
    if missing or unknown:
        raise FormatError(
            f"{who}: {layout} must have the tensors {', '.join(names)}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unknown: {', '.join(unknown) or 'none'}. Check the configuration's bits, symmetric and format."
        )
    return row.unpack(tensors, spec)

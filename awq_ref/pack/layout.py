"""What a layout is: one record, of which `awq_ref.pack.layouts` has a row for each.

Layout   name, what it can hold, its two functions, and the file that a checkpoint of it is
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from awq_ref.dtypes import AnyArray
from awq_ref.spec import QuantizedLinear, QuantSpec, ScaleDtype

FLOATS: tuple[ScaleDtype, ...] = ("float16", "float32")


@dataclass(frozen=True)
class Layout:
    """One layout: how a quantized linear becomes the tensors of a file, and back.

    name             what configuration files call it, or its makers
    bits             the bit widths that it can hold
    tensor_names     spec -> the tensor names' ends that it writes and requires
    obstacle         (out_features, in_features, spec) -> why this linear does not fit, or None
    pack, unpack     the two directions
    scales           the end of the name of its scales, whose dtype is the spec's scale_dtype
    scale_dtypes     the dtypes that it stores scales in
    symmetric_alone  it has no place for zero points other than 2**(bits-1)
    optional         ends of names that may be there as well
    holds            which of the optional fields of a QuantizedLinear it can write: offset, input_order
    file             what a whole checkpoint of it is: "folder", as Hugging Face's libraries read it; None: nothing that
                     this package writes or reads, so that linears alone are packed and unpacked
    """

    name: str
    bits: tuple[int, ...]
    tensor_names: Callable[[QuantSpec], tuple[str, ...]]
    obstacle: Callable[[int, int, QuantSpec], str | None]
    pack: Callable[[QuantizedLinear], dict[str, AnyArray]]
    unpack: Callable[[Mapping[str, AnyArray], QuantSpec], QuantizedLinear]
    scales: str = "scales"
    scale_dtypes: tuple[ScaleDtype, ...] = FLOATS
    symmetric_alone: bool = False
    optional: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    file: Literal["folder"] | None = "folder"

    def why_not(self, out_features: int, in_features: int, spec: QuantSpec) -> str | None:
        """Return the reason why this layout cannot hold such a linear, or None if it can."""
        if spec.bits not in self.bits:
            return f"{self.name} holds {self.widths} bits, not {spec.bits}"
        if spec.group_size != -1 and in_features % spec.group_size:
            return f"in_features={in_features} is no multiple of group_size={spec.group_size}"
        if reason := self.obstacle(out_features, in_features, spec):
            return reason
        if self.symmetric_alone and not spec.symmetric:
            return f"{self.name} stores no zero points: it holds symmetric linears alone"
        if spec.scale_dtype not in self.scale_dtypes:
            return f"{self.name} stores scales in {self.scale_dtypes[0]}, not {spec.scale_dtype}"
        return None

    @property
    def widths(self) -> str:
        """The bit widths, as a message says them."""
        return " or ".join(map(str, self.bits))

    def no_place_for(self, linear: QuantizedLinear) -> str | None:
        """Return the field of a linear that the layout cannot write, or None."""
        fields = ("offset", "input_order")
        return next((f for f in fields if getattr(linear, f) is not None and f not in self.holds), None)

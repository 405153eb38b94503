"""Packed bytes -> outputs: the layout in memory, the meaning of the product, the fast product, residency.

planes      codes <-> bit planes, as a 128-bit register takes them
reference   the meaning, in two readable forms
columns     codes <-> the bytes that the fast loops read
tiles       the two fast loops
packed      PackedLinear
dense       DenseLinear
int8        Int8Linear
residency   QuantizedLinear -> LinearOperator
"""

from awq_ref.matmul.columns import fits
from awq_ref.matmul.dense import DenseLinear
from awq_ref.matmul.int8 import Int8Linear
from awq_ref.matmul.packed import PackedLinear
from awq_ref.matmul.planes import FIELDS, block_size, pack_planes, unpack_planes
from awq_ref.matmul.reference import matmul_reference, packed_matmul_reference
from awq_ref.matmul.residency import RESIDENCIES, Residency, to_operator, why_not_packed

__all__ = [
    "FIELDS",
    "RESIDENCIES",
    "DenseLinear",
    "Int8Linear",
    "PackedLinear",
    "Residency",
    "block_size",
    "fits",
    "matmul_reference",
    "pack_planes",
    "packed_matmul_reference",
    "to_operator",
    "unpack_planes",
    "why_not_packed",
]

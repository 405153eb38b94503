"""Weights to integers: range, scale and zero point of a group, rounding, and back.

group_range, grid_of_range, choose_grid    the grid of each group
quantize, dequantize                       codes on a grid, and back
quantize_linear, dequantize_linear         the same for a whole layer
pseudo_quantize                            the float round trip, fast
"""

from awq_ref.quantize.affine import dequantize, dequantize_linear, quantize, quantize_linear
from awq_ref.quantize.grid import RANGE_FLOOR, choose_grid, grid_of_range, group_range
from awq_ref.quantize.pseudo import pseudo_quantize

__all__ = [
    "RANGE_FLOOR",
    "choose_grid",
    "dequantize",
    "dequantize_linear",
    "grid_of_range",
    "group_range",
    "pseudo_quantize",
    "quantize",
    "quantize_linear",
]

"""Weights to integers: range, scale and zero point of a group, rounding, and back.

group_range, grid_of_range, choose_grid    the grid of each group
quantize, dequantize                       codes on a grid, and back
quantize_linear, dequantize_linear         the same for a whole layer
pseudo_quantize                            the float round trip, fast
feedback_factor, round_with_feedback       GPTQ
search_ranges, descend_codes, moved_weight    what makes it better
round_linear, Evidence, better_rows        a whole layer, in the way that a `Rounding` says
take_rows, join_rows                       layers that a checkpoint keeps in one tensor
"""

from awq_ref.quantize.affine import dequantize, dequantize_linear, quantize, quantize_linear
from awq_ref.quantize.descent import descend_codes
from awq_ref.quantize.gptq import FeedbackFactor, feedback_factor, round_with_feedback
from awq_ref.quantize.grid import RANGE_FLOOR, choose_grid, grid_of_range, group_range
from awq_ref.quantize.layer import Evidence, better_rows, round_linear
from awq_ref.quantize.pseudo import pseudo_quantize
from awq_ref.quantize.ranges import search_ranges
from awq_ref.quantize.rows import join_rows, take_rows
from awq_ref.quantize.target import moved_weight

__all__ = [
    "RANGE_FLOOR",
    "Evidence",
    "FeedbackFactor",
    "better_rows",
    "choose_grid",
    "dequantize",
    "dequantize_linear",
    "descend_codes",
    "feedback_factor",
    "grid_of_range",
    "group_range",
    "join_rows",
    "moved_weight",
    "pseudo_quantize",
    "quantize",
    "quantize_linear",
    "round_linear",
    "round_with_feedback",
    "search_ranges",
    "take_rows",
]

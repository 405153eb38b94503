"""Calibration: token windows -> activations -> statistics.

windows      which tokens are run
observe      what enters the linear layers while they run
statistics   mean |x| and the Gram matrix of every site: all that the search needs
drift        what quantized layers have made of a site's input, beside what it was
"""

from awq_ref.calibration.drift import DriftAccumulator, DriftStatistics
from awq_ref.calibration.observe import (
    BatchLinears,
    Observations,
    Observed,
    StridedTokens,
    Unread,
    clip_token_stride,
    observe,
)
from awq_ref.calibration.statistics import (
    SiteStatistics,
    StatisticsAccumulator,
    load_statistics,
    merge,
    save_statistics,
)
from awq_ref.calibration.windows import llm_awq_windows, token_windows

__all__ = [
    "BatchLinears",
    "DriftAccumulator",
    "DriftStatistics",
    "Observations",
    "Observed",
    "SiteStatistics",
    "StatisticsAccumulator",
    "StridedTokens",
    "Unread",
    "clip_token_stride",
    "llm_awq_windows",
    "load_statistics",
    "merge",
    "observe",
    "save_statistics",
    "token_windows",
]

"""What a search returns: small vectors and losses, no weights.

    SiteReport    what was tried and chosen at one site
    BlockResult   new norms, one LinearFold per linear layer, the reports

The weights themselves are scaled and clipped one layer at a time, when they are quantized
(`BlockResult.folds[name].apply(weight)`), so a block is in memory once.
"""

from dataclasses import dataclass

from awq_ref.dtypes import F32
from awq_ref.search.folding import LinearFold


@dataclass(frozen=True)
class SiteReport:
    """What the search did at one site. Losses are mean squared errors of an output element.

    site, linears  : the site and the layers that read it
    alphas, losses : what was tried, and the recipe's objective ("gram", "module", "feedback") of each
    alpha          : the chosen one, the first with the least loss
    channel_scales : float32 (in_features,), on the consumers' columns
    clips          : dict of layer -> float32 (out_features, n_groups); layers that are not clipped are absent
    loss_rtn, loss_scaled, loss_clipped : [AWQ-7] of round-to-nearest, of the chosen scales, of scales and
        clips; on all tokens, whatever objective chose, so that recipes can be compared
    loss_rounded : the same of the integers that error feedback found; None where weights are rounded to nearest,
        which makes it loss_clipped
    damping : what error feedback added to the Gram matrix, as a share of its mean diagonal; None without it
    """

    site: str
    linears: tuple[str, ...]
    alphas: tuple[float, ...]
    losses: tuple[float, ...]
    alpha: float
    channel_scales: F32
    loss_rtn: float
    loss_scaled: float
    clips: dict[str, F32]
    loss_clipped: float
    loss_rounded: float | None = None
    damping: float | None = None

    @property
    def loss(self) -> float:
        """The loss of what is stored."""
        return self.loss_clipped if self.loss_rounded is None else self.loss_rounded


@dataclass(frozen=True)
class BlockResult:
    """What the search decided for one block.

    norms   : dict of norm -> float32 weight as it is to be stored (all norms of the block)
    folds   : dict of linear layer -> LinearFold (all of them); quantize folds[name].apply(weight)
    reports : one SiteReport per site; none for a recipe that searches nothing when there are no statistics
    """

    norms: dict[str, F32]
    folds: dict[str, LinearFold]
    reports: tuple[SiteReport, ...]

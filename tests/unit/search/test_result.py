import numpy as np
from helpers.assertions import assert_same_bits

from awq_ref.search import BlockResult, LinearFold, SiteReport


def f32(*values):
    return np.array(values, dtype=np.float32)


def report(site, linear, clip):
    return SiteReport(
        site,
        (linear,),
        (0.0,),
        (1.0,),
        0.0,
        f32(1.0, 1.0),
        1.0,
        1.0,
        {linear: clip} if clip is not None else {},
        1.0,
    )


def test_clips_found_apart_are_put_beside_the_scales():
    scaled = BlockResult(
        {"norm": f32(1.0)},
        {"v": LinearFold(rows=f32(2.0, 4.0)), "o": LinearFold(columns=f32(2.0, 4.0)), "up": LinearFold()},
        (report("o", "o", None),),
    )
    clips = (report("qkv", "v", f32(6.0, 8.0)[:, None]), report("up", "up", f32(5.0)[:, None]))
    both = scaled.with_fixed(BlockResult({}, {}, clips))
    assert [entry.site for entry in both.reports] == ["o", "qkv", "up"]
    assert_same_bits(
        both.folds["v"].clip, [[3.0], [2.0]], dtype=np.float32
    )  # its rows are divided, its clips too
    assert_same_bits(both.folds["v"].rows, [2.0, 4.0], dtype=np.float32)
    assert_same_bits(both.folds["up"].clip, [[5.0]], dtype=np.float32)
    assert both.folds["o"] is scaled.folds["o"]
    assert scaled.folds["v"].clip is None
    assert both.norms is scaled.norms

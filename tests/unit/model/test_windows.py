import pytest

from awq_ref.errors import FormatError, UnsupportedError
from awq_ref.model.windows import read_rope_layers, read_windows


@pytest.mark.parametrize(
    ("rule", "config", "expected"),
    [
        ("never", {"sliding_window": 4}, ()),
        ("always", {"sliding_window": 4}, (4, 4, 4)),
        ("always", {"sliding_window": None}, ()),
        ("always", {}, ()),
        ("every_other", {"sliding_window": 4}, (4, 0, 4)),
        ("upper_layers", {"sliding_window": 4, "max_window_layers": 1}, ()),
        (
            "upper_layers",
            {"sliding_window": 4, "max_window_layers": 1, "use_sliding_window": True},
            (0, 4, 4),
        ),
        ("layers_without_rope", {"sliding_window": 4, "no_rope_layer_interval": 2}, ()),
        (
            "layers_without_rope",
            {"sliding_window": 4, "no_rope_layer_interval": 2, "use_sliding_window": True},
            (0, 4, 0),
        ),
        ("upper_layers", {"sliding_window": 4, "max_window_layers": 3, "use_sliding_window": True}, ()),
    ],
)
def test_which_layers_have_the_window(rule, config, expected):
    assert read_windows(config, rule, 3) == expected


def test_layer_types_decide_where_they_are_given():
    types = ["full_attention", "sliding_attention", "sliding_attention"]
    assert read_windows({"sliding_window": 5, "layer_types": types}, "every_other", 3) == (0, 5, 5)
    assert read_windows({"sliding_window": 5, "layer_types": types}, "never", 3) == ()
    assert read_windows({"sliding_window": None, "layer_types": types}, "always", 3) == ()


@pytest.mark.parametrize("window", [0, -1, 2.5, True, "4"])
def test_a_window_that_is_none(window):
    with pytest.raises(FormatError, match="sliding_window must be a whole number of at least 1; got"):
        read_windows({"sliding_window": window}, "always", 2)


def test_layer_types_that_do_not_fit():
    with pytest.raises(FormatError, match="layer_types must be a list of 2, one per layer; got 1 entries"):
        read_windows({"sliding_window": 4, "layer_types": ["full_attention"]}, "always", 2)
    with pytest.raises(FormatError, match="one per layer; got 'full_attention'"):
        read_windows({"sliding_window": 4, "layer_types": "full_attention"}, "always", 2)
    with pytest.raises(
        UnsupportedError, match="full_attention or sliding_attention; got 'chunked_attention'"
    ):
        read_windows({"sliding_window": 4, "layer_types": ["chunked_attention"] * 2}, "always", 2)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ()),
        ({"no_rope_layer_interval": 4}, ()),
        ({"no_rope_layer_interval": 2}, (True, False, True)),
        ({"no_rope_layer_interval": 1}, (False, False, False)),
        ({"no_rope_layer_interval": 2, "no_rope_layers": [0, 1, 1, 0]}, (False, True, True)),
    ],
)
def test_which_layers_have_rope(config, expected):
    assert read_rope_layers(config, 3) == expected


def test_layers_without_rope_that_do_not_fit():
    for interval in (0, -1, 2.5, True, "4"):
        with pytest.raises(FormatError, match="no_rope_layer_interval must be a whole number of at least 1"):
            read_rope_layers({"no_rope_layer_interval": interval}, 2)
    with pytest.raises(FormatError, match="no_rope_layers must be a list of 2, one per layer; got 1 entries"):
        read_rope_layers({"no_rope_layer_interval": 4, "no_rope_layers": [1]}, 2)
    with pytest.raises(FormatError, match="one per layer; got 3"):
        read_rope_layers({"no_rope_layer_interval": 4, "no_rope_layers": 3}, 2)

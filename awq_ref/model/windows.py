"""What differs from layer to layer: windows, which look no further back than a number of tokens, and rope.

    WINDOWS            the rules by which a family's layers are told apart, by name
    read_windows       config.json -> one window per layer, 0 for a layer that sees the whole text
    read_rope_layers   config.json -> for every layer whether it turns queries and keys

Where config.json has ``layer_types``, it decides; the older files leave it to the family's rule.

Sources: Beltagy et al. 2020, arXiv:2004.05150; Jiang et al. 2023, arXiv:2310.06825, section 2; docs/equations.md#llm-5.
"""

from collections.abc import Callable, Mapping
from typing import Any

from awq_ref.errors import FormatError, UnsupportedError

FULL, SLIDING = "full_attention", "sliding_attention"


def _upper_layers(layer: int, config: Mapping[str, Any]) -> bool:
    """From max_window_layers on, and only if use_sliding_window is set."""
    return layer >= int(config.get("max_window_layers") or 0)


def _all_but_every_nth(layer: int, config: Mapping[str, Any]) -> bool:
    """The layers between those whose number, from 1, sliding_window_pattern divides."""
    return (layer + 1) % int(config["sliding_window_pattern"] or 6) != 0


def _has_rope(layer: int, config: Mapping[str, Any]) -> bool:
    """By the list, or else all layers but every n-th, n the interval."""
    listed = config.get("no_rope_layers")
    if listed is not None:
        return bool(listed[layer])  # 1: a layer with rope, whatever the name says
    return (layer + 1) % int(config["no_rope_layer_interval"]) != 0


# Rule -> whether a layer has the window, given its number and the config.json.
WINDOWS: dict[str, Callable[[int, Mapping[str, Any]], bool]] = {
    "never": lambda layer, config: False,
    "always": lambda layer, config: True,
    "switched_on": lambda layer, config: True,
    "every_other": lambda layer, config: layer % 2 == 0,
    "all_but_every_nth": _all_but_every_nth,
    "upper_layers": _upper_layers,
    "layers_without_rope": lambda layer, config: not _has_rope(layer, config),
}
SWITCHED = (
    "switched_on",
    "upper_layers",
    "layers_without_rope",
)  # use_sliding_window turns them on; without it there is no window


def _layer_types(config: Mapping[str, Any], n_layers: int) -> list[str] | None:
    """Return config.json's own list, checked; None if it has none."""
    types = config.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or len(types) != n_layers:
        came = f"{len(types)} entries" if isinstance(types, list) else repr(types)
        raise FormatError(
            f"config.json: layer_types must be a list of {n_layers}, one per layer; got {came}."
        )
    unknown = next((kind for kind in types if kind not in (FULL, SLIDING)), None)
    if unknown is not None:
        raise UnsupportedError(
            f"config.json: layer_types must be {FULL} or {SLIDING}; got {unknown!r}. Other kinds do not run yet."
        )
    return types


def read_windows(config: Mapping[str, Any], rule: str, n_layers: int) -> tuple[int, ...]:
    """Return for every layer how many columns a query sees, its own included; 0: all of them; () if every layer does.

    Parameters
    ----------
    config : the contents of a config.json, with the family's defaults
    rule : a key of WINDOWS
    n_layers : int

    Raises
    ------
    FormatError
        If the window is not a whole number of at least 1, or layer_types does not fit the layers.
    UnsupportedError
        If layer_types names a kind of layer that is not known.

    Examples
    --------
    >>> read_windows({"sliding_window": 5}, "every_other", 4)
    (5, 0, 5, 0)
    """
    window = config.get("sliding_window")
    types = _layer_types(config, n_layers)
    off = rule == "never" or (rule in SWITCHED and not config.get("use_sliding_window"))
    if window is None or off:
        return ()
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise FormatError(
            f"config.json: sliding_window must be a whole number of at least 1; got {window!r}."
        )
    if types is None:
        types = [SLIDING if WINDOWS[rule](layer, config) else FULL for layer in range(n_layers)]
    windows = tuple(window if kind == SLIDING else 0 for kind in types)
    return windows if any(windows) else ()


def read_rope_layers(config: Mapping[str, Any], n_layers: int) -> tuple[bool, ...]:
    """Return for every layer whether it has rope; () if every layer does.

    Parameters
    ----------
    config : the contents of a config.json, with the family's defaults
        Only families that have a no_rope_layer_interval have layers without.
    n_layers : int

    Raises
    ------
    FormatError
        If no_rope_layers does not fit the layers, or the interval is not a whole number of at least 1.

    Examples
    --------
    >>> read_rope_layers({"no_rope_layer_interval": 3}, 4)
    (True, True, False, True)
    """
    interval, listed = config.get("no_rope_layer_interval"), config.get("no_rope_layers")
    if interval is None:
        return ()
    if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
        raise FormatError(
            f"config.json: no_rope_layer_interval must be a whole number of at least 1; got {interval!r}."
        )
    if listed is not None and (not isinstance(listed, list) or len(listed) < n_layers):
        came = f"{len(listed)} entries" if isinstance(listed, list) else repr(listed)
        raise FormatError(
            f"config.json: no_rope_layers must be a list of {n_layers}, one per layer; got {came}."
        )
    layers = tuple(_has_rope(layer, config) for layer in range(n_layers))
    return () if all(layers) else layers

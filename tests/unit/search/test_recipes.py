from dataclasses import replace

import pytest

from awq_ref.errors import RangeError
from awq_ref.search import RECIPES, recipe_named
from awq_ref.search.candidates import CANDIDATES, WEIGHTED_CANDIDATES
from awq_ref.spec import QuantSpec, Rounding

SPEC = QuantSpec(bits=4, group_size=32)


def test_rtn_searches_nothing():
    assert not recipe_named("rtn").searches
    assert not recipe_named("rtn").clips("mlp.up_proj")
    assert recipe_named("rtn").storage_spec(SPEC) == SPEC


def test_awq_tries_identity_and_one_and_judges_what_is_stored():
    recipe = recipe_named("awq")
    assert recipe.searches
    assert {0.0, 1.0} <= set(recipe.alphas)
    assert recipe.search_spec(SPEC) == recipe.storage_spec(SPEC) == SPEC
    assert all(recipe.clips(f"self_attn.{name}_proj") for name in "qkvo")


def test_llm_awq_is_the_published_row():
    recipe = recipe_named("llm-awq")
    assert recipe.alphas == tuple(i / 20 for i in range(20))
    assert recipe.refine == 0.0
    assert (recipe.candidates, recipe.objective) == ("llm-awq", "module")
    assert (recipe.tied_sites, recipe.fold, recipe.clip_guard) == ("skip", "plain", False)
    assert recipe.clip_ratios == tuple(1 - i / 20 for i in range(10))
    assert recipe.clip_tokens == 512
    assert recipe.storage_spec(SPEC) == QuantSpec(bits=4, group_size=32, range_rule="minmax")
    assert recipe.search_spec(SPEC).scale_dtype == "float32"


def test_llm_awq_skips_by_substring():
    recipe = recipe_named("llm-awq")
    assert recipe.clips("mlp.down_proj")
    assert not recipe.clips("self_attn.k_proj")
    assert not recipe.clips("block_sparse_moe.experts.0.w1")  # the quirk: "k_" of "block_"


def test_autoawq_is_llm_awq_with_duo_scaling():
    assert recipe_named("autoawq") == replace(recipe_named("llm-awq"), name="autoawq", candidates="autoawq")


@pytest.mark.parametrize("name", ["gptq", "gptq-r"])
def test_gptq_needs_statistics_and_scales_nothing(name):
    recipe = recipe_named(name)
    assert recipe.searches
    assert not recipe.needs_tokens
    assert recipe.alphas == (0.0,)
    assert recipe.rounding.feeds_back
    assert recipe.rounding.act_order == (name != "gptq")


def test_awq_with_gptq_is_awq_rounded_with_feedback():
    recipe = recipe_named("awq+gptq")
    assert replace(recipe, name="awq", rounding=Rounding()) == recipe_named("awq")
    assert recipe.rounding == recipe_named("gptq").rounding


@pytest.mark.parametrize("name", RECIPES)
def test_rows_are_filed_under_their_names_and_name_what_exists(name):
    recipe = recipe_named(name)
    assert recipe.name == name
    assert recipe.candidates in CANDIDATES.keys() | WEIGHTED_CANDIDATES.keys()
    assert recipe.clip_ratios[:1] in ((), (1.0,))


def test_an_unknown_recipe():
    with pytest.raises(RangeError, match=r"recipe must be one of 'rtn', 'gptq', .*; got 'hqq'"):
        recipe_named("hqq")

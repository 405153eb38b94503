"""The tool that puts results into the pages."""

from refresh_paper import BLOCK, with_result

PAGE = """# T

<!-- result: main -->
old
<!-- /result -->

between

<!-- result: main --outliers 8 -->
<!-- /result -->

after
"""


def test_blocks_are_found_with_their_words():
    assert [match["words"] for match in BLOCK.finditer(PAGE)] == ["main", "main --outliers 8"]


def test_one_block_is_replaced_and_the_rest_stays():
    page = with_result(PAGE, "main", "<!-- result: main -->\nnew\n<!-- /result -->")
    assert page == PAGE.replace("old", "new")

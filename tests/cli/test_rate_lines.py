"""The lines about a threshold's rate on new groups, word for word."""

import pytest

from tfgad.cli.console import rate_on_new_groups, rates_on_new_groups

RECORD = {
    "images": 126,
    "unit": "tile",
    "groups": 3,
    "group": "strip",
    "rate_interval": [0.0, 0.0634],
    "rate_at_most": 0.708,
    "groups_needed": 41,
    "groups_needed_for": 0.02,
}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            "the 126 tiles come from 3 strips: on new strips the rate may be up to 71 %, or 0 to "
            "6.3 % if they are as alike as these; with up to 38 more strips as alike as these, the "
            "second figure would be at most 2 %",
        ),
        (
            {"groups": 1, "rate_interval": [0, 0.975], "rate_at_most": 0.975, "groups_needed": 2},
            "the 126 tiles come from one strip: on new strips the rate may be up to 98 %; "
            "with up to 1 more strip as alike as these, it would be at most 2 %",
        ),
        (
            {"groups": 126, "group": "image", "unit": "image", "rate_at_most": 0.0634},
            "on new images like these 126 the rate may be 0 to 6.3 %",
        ),
        (
            {"groups": 126, "unit": "image", "rate_at_most": 0.0634, "groups_needed": 753},
            "on new images like these 126 the rate may be 0 to 6.3 %; 627 more would keep it "
            "below 2 %",
        ),
    ],
)
def test_a_record_is_one_sentence(changes, line):
    assert rate_on_new_groups({**RECORD, **changes}) == line


def test_each_product_has_a_line_of_its_own():
    few = {"images": 10, "groups": 10, "rate_interval": [0, 0.31], "effective_images": 10.0}
    of_products = {"bolt": {**few, "rate_at_most": 0.31, "groups_needed": 10}, "nut": RECORD}
    lines = list(rates_on_new_groups({**RECORD, "unit": "image", "products": of_products}))
    assert lines == [
        "product bolt: on new images like these 10 the rate may be 0 to 31 %; no score has a "
        "probability below 0.08 or above 0.92",
        f"product nut: {rate_on_new_groups(RECORD)}",
    ]
    before = {"bolt": {"threshold": 1.0, "method": "empirical quantile", "images": 10}}
    assert list(rates_on_new_groups({**RECORD, "products": before})) == [
        f"all products together: {rate_on_new_groups(RECORD)}"
    ]
    assert list(rates_on_new_groups(RECORD)) == [rate_on_new_groups(RECORD)]
    assert list(rates_on_new_groups({"images": 126})) == []

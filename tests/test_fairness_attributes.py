"""Declared attributes become codes; unknown stays apart."""

import numpy as np
import pytest

from ilqljax.errors import UserError
from ilqljax.hiring.attributes import AttributeTable
from ilqljax.hiring.postings.posting import Candidate


def make_table() -> AttributeTable:
    declared = [
        {"gender": "male", "region": "north"},
        {"gender": "female", "region": ""},
        {"gender": " female "},
        {"gender": "", "region": "south"},
        {"gender": "female", "region": "north"},
    ]
    return AttributeTable.from_candidates(Candidate(f"c{i}", "", attributes) for i, attributes in enumerate(declared))


def test_empty_blank_and_missing_values_are_unknown():
    table = make_table()
    assert table.names == ("gender", "region")
    assert table.attribute("gender").categories == ("female", "male")
    np.testing.assert_array_equal(table.attribute("gender").codes, [1, 0, 0, -1, 0])
    np.testing.assert_array_equal(table.attribute("region").codes, [0, -1, -1, 1, 0])


def test_intersection_holds_occurring_combinations_and_unknown_if_any_part_is():
    combined = make_table().intersection(["gender", "region"])
    assert combined.name == "gender x region"
    assert combined.categories == ("female / north", "male / north")
    np.testing.assert_array_equal(combined.codes, [1, -1, -1, -1, 0])


def test_unknown_attribute_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'sex'.*gender, region"):
        make_table().attribute("sex")


def test_intersection_of_one_attribute_is_refused():
    with pytest.raises(UserError, match="two or more"):
        make_table().intersection(["gender", "gender"])


def test_value_that_is_not_text_names_the_candidate():
    with pytest.raises(UserError, match=r"candidate 'a', attribute 'age'.*41"):
        AttributeTable.from_candidates([Candidate("a", "", {"age": 41})])


def test_candidates_without_attributes_give_a_table_without_columns():
    table = AttributeTable.from_candidates([Candidate("a", "", {})])
    assert table.names == () and table.ids == ("a",)


def test_codes_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="read-only"):
        make_table().attribute("gender").codes[0] = 0

"""JSON that two programs could understand differently is refused."""

from __future__ import annotations

import pytest

from sidecar.core.strict_json import strict_decoder


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '{"a":{"b":1,"b":2}}', '[{"a":1,"b":2,"a":3}]'])
def test_a_field_that_is_there_twice_is_refused_at_any_depth(text: str) -> None:
    with pytest.raises(ValueError, match="is there twice"):
        strict_decoder()(text)


def test_the_same_field_of_two_objects_is_none_that_is_there_twice() -> None:
    assert strict_decoder()('[{"a":1},{"a":2}]') == [{"a": 1}, {"a": 2}]


def test_where_only_one_field_counts_others_may_be_there_twice() -> None:
    decode = strict_decoder(only="allowed")
    assert decode('{"a":1,"a":2}') == {"a": 2}
    with pytest.raises(ValueError, match="'allowed' is there twice"):
        decode('{"allowed":true,"a":1,"allowed":false}')


@pytest.mark.parametrize("text", ["NaN", "Infinity", '{"a":-Infinity}'])
def test_what_is_no_json_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a JSON value"):
        strict_decoder()(text)


def test_many_fields_of_which_the_last_is_there_twice_take_no_time() -> None:
    text = "{" + ",".join(f'"{number}":0' for number in [*range(100_000), 99_999]) + "}"
    with pytest.raises(ValueError, match="'99999' is there twice"):
        strict_decoder()(text)

"""What an error of any library says goes into one line of a message."""

from __future__ import annotations

import pytest

from hf_chain.errors import reason, reason_behind


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ("Error(s) in loading:\n\tsize mismatch. ", "Error(s) in loading: size mismatch"),
        ("", "ValueError"),
        (" \n.", "ValueError"),
        ("long " * 10**6, ("long " * 40).rstrip()),
    ],
)
def test_a_reason_is_one_line_that_another_sentence_can_go_on_from(said: str, line: str) -> None:
    assert reason(ValueError(said)) == line


def test_of_a_wrapped_error_the_one_behind_is_told() -> None:
    with pytest.raises(RuntimeError) as error:
        try:
            raise KeyError("text")
        except KeyError as cause:
            raise RuntimeError("An error occurred while generating the dataset") from cause
    assert reason_behind(error.value) == "KeyError: 'text'"
    assert reason_behind(KeyError("text")) == "KeyError: 'text'"

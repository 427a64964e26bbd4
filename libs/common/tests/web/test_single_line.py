"""What may be a name of something."""

import pytest

from common.web.single_line import is_single_line

NOTHING = ("\u3000", "\u200b", "\u3164", "\u115f\u1160", "\u2800", "\ufeff")


@pytest.mark.parametrize("text", ["A", "Desk lamp", "Łódź", "王", "👩‍🚀", "Ζωή 2", "שלום", "x\u200dy", "-"])
def test_visible_text_on_one_line_is_accepted(text: str) -> None:
    assert is_single_line(text)


@pytest.mark.parametrize(
    "text",
    ["", " ", "a\nb", "a\r", "a\tb", "\x7f", "a\x85b", "a\u2028b", "\u202egpj.exe", "\ud800", *NOTHING],
)
def test_invisible_text_and_several_lines_are_refused(text: str) -> None:
    assert not is_single_line(text)

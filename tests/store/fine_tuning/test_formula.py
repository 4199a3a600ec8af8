import math

import pytest

from proxy_model.errors import InvalidParameter
from store.fine_tuning.formula import Formula


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.25 * a + b", 1.75),
        ("-a^2", -9.0),  # the power binds more strongly than the sign
        ("2^a^2", 512.0),  # and from the right
        ("min(a, b, 2) - max(b)", 0.0),
        ("abs(-a) / floor(1.9) + ceil(b)", 4.0),
        ("sqrt(a + 1) * exp(0) - log(1)", 2.0),
        ("(a - b) * (a + b)", 8.0),
    ],
)
def test_a_formula_is_arithmetic_over_named_scores(text: str, expected: float) -> None:
    assert Formula.parse(text).value({"a": 3.0, "b": 1.0}) == pytest.approx(expected)


def test_the_names_of_a_formula_are_those_that_it_needs_values_for() -> None:
    assert Formula.parse("max(fluent, 0.5) * (true_to_source - 1)").names == {"fluent", "true_to_source"}


@pytest.mark.parametrize("text", ["1 / a", "(a - 1)^0.5", "log(a)", "9^9^9^9", "exp(1000)"])
def test_a_formula_without_a_value_is_nan(text: str) -> None:
    assert math.isnan(Formula.parse(text).value({"a": 0.0}))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.real",
        "a[0]",
        "a if b else c",
        "a == b",
        "a // b",
        "lambda: 1",
        "True",
        "1j",
        "1e999",
        pytest.param("a + " + "9" * 400, id="more than a float holds"),
        "'a'",
        "sqrt",
        "min()",
        "log(a, b)",
        "min(*a)",
        "round(a)",
        "a; b",
        "a +",
        "",
        "a\0",
        "(" * 400 + "a" + ")" * 400,
        "-" * 400 + "a",
        "a" * 1001,
        None,
        3,
    ],
)
def test_what_is_no_arithmetic_is_refused_by_name(text: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^calculate_output must be"):
        Formula.parse(text)

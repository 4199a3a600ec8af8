import pytest

from proxy_model.errors import InvalidParameter
from store.fine_tuning.template import Template


def test_a_template_is_filled_from_the_row_and_the_answer() -> None:
    template = Template.parse("{{item.id}}|{{ item.source.page }}|{{sample.output_text}}|{{item.tags}}|{x}", "input")

    filled = template.fill({"id": "a1", "source": {"page": 7}, "tags": ["é", 2]}, "{{item.id}}")

    assert filled == 'a1|7|{{item.id}}|["é", 2]|{x}'  # an answer is no template, whatever it says


def test_the_fields_of_a_template_are_named() -> None:
    assert Template.parse("{{item.a.b}} {{sample.output_text}} {{ item.c }}", "input").fields == {"a.b", "c"}


@pytest.mark.parametrize("item", [{}, {"a": 1}, {"a": {"c": 1}}])
def test_a_missing_field_is_named(item: dict[str, object]) -> None:
    with pytest.raises(KeyError, match=r"a\.b"):
        Template.parse("{{item.a.b}}", "input").fill(item, "")


@pytest.mark.parametrize("text", ["{{item}}", "{{sample.choices}}", "{{os.environ}}", "{{}}", "{{item.a()}}", None, 4])
def test_other_places_and_other_types_are_refused(text: object) -> None:
    with pytest.raises(InvalidParameter, match=r"^reference must be"):
        Template.parse(text, "reference")

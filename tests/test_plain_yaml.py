"""What is written as YAML is read back as it was, in the order in which it was."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.plain_yaml import to_yaml

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
CONTENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(TEXTS, CONTENT, max_size=4))
def test_it_is_read_back(content: dict[str, object]) -> None:
    again = yaml.safe_load(to_yaml(content))
    assert again == content
    assert list(again) == list(content)


def test_japanese_stays_readable() -> None:
    assert to_yaml({"prompt": "三たす五は？"}) == "prompt: 三たす五は？\n"

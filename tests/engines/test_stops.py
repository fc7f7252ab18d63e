"""Where a text ends."""

from hypothesis import given
from hypothesis import strategies as st

from evomerge_optuna.engines.stops import cut

STOPS = ["\n\n", "Q:", "Q"]
TEXTS = st.text(alphabet="aQ: \n", max_size=12)


@given(TEXTS)
def test_a_text_holds_no_stop_string_and_names_what_ended_it(text: str) -> None:
    found = cut(text, STOPS)
    assert not any(stop in found for stop in STOPS)
    assert (found.stopped_by is None) == (not any(stop in text for stop in STOPS))
    if found.stopped_by is not None:
        before, _ = text.split(found.stopped_by, 1)
        assert found == before.strip()
    else:
        assert found == text.strip()

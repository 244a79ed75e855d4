"""Numbered examples: they depend on the seed and their number alone."""

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.training import examples, vocabulary

STREAM = (np.arange(3, 103), np.arange(103, 203))


def test_windows_do_not_depend_on_count_or_order() -> None:
    few, many = (examples.Windows(STREAM, 8, count, 3, vocabulary=300) for count in (50, 90))
    assert all(few[i]["input_ids"].equal(many[i]["input_ids"]) for i in (49, 0, 7))


def test_windows_depend_on_the_seed() -> None:
    one, other = (examples.Windows(STREAM, 8, 50, seed, vocabulary=300) for seed in (3, 4))
    assert not one[1]["input_ids"].equal(other[1]["input_ids"])


def test_evenly_spaced_windows_reach_from_the_first_token_to_the_last() -> None:
    even = examples.Windows(STREAM, 8, 5, 0, even=True, vocabulary=300)
    assert [int(even[i]["input_ids"][0]) for i in (0, 4)] == [3, int(even.stream[-8])]


@pytest.mark.parametrize(("side", "even"), [("training", False), ("held-out", True)])
def test_a_text_shorter_than_a_window_is_an_error(side: str, even: bool) -> None:
    with pytest.raises(st.InputError, match=f"the {side} text has 202 tokens, fewer than one window"):
        examples.Windows(STREAM, 500, 5, 0, even=even, vocabulary=300)


def test_a_fixed_share_of_tokens_is_to_be_predicted() -> None:
    windows = examples.Windows(STREAM, 40, 400, 0, vocabulary=300, masking=0.3)
    assert {int((windows[i]["labels"] != examples.IGNORED).sum()) for i in range(400)} == {12}


def test_of_the_tokens_to_predict_four_fifths_are_masked_and_a_tenth_is_kept() -> None:
    windows = examples.Windows(STREAM, 40, 400, 0, vocabulary=300, masking=0.3)
    kept = replaced = masked = 0
    for i in range(400):
        shown, labels = windows[i]["input_ids"].numpy(), windows[i]["labels"].numpy()
        chosen = labels != examples.IGNORED
        masked += int((shown[chosen] == vocabulary.MASK).sum())
        kept += int((shown[chosen] == labels[chosen]).sum())
        replaced += int(((shown != labels) & chosen & (shown != vocabulary.MASK)).sum())
    total = 400 * 12
    # five standard deviations of a binomial share, which a right share leaves once in a million
    assert abs(masked / total - 0.8) < 5 * (0.16 / total) ** 0.5
    assert abs(kept / total - 0.1 - 0.1 / 297) < 5 * (0.09 / total) ** 0.5
    assert masked + kept + replaced == total


def test_a_table_passes_over_all_rows_in_an_order_of_its_own() -> None:
    table = examples.Table({"labels": np.arange(10)}, 30, 1)
    passes = [[int(table[10 * p + i]["labels"]) for i in range(10)] for p in range(3)]
    assert all(sorted(each) == list(range(10)) for each in passes)
    assert passes[0] != passes[1]
    assert int(table[25]["labels"]) == passes[2][5]


def test_texts_are_cut_or_padded_and_the_mask_marks_their_tokens() -> None:
    found = examples.pad([np.array([5, 6]), np.array([7, 8, 9, 4])], 3)
    assert found["input_ids"].tolist() == [[5, 6, vocabulary.PAD], [7, 8, 9]]
    assert found["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]

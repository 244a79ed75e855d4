"""The state of the page: its address, the networks that it describes, and what is wrong with it."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

pytest.importorskip("dash")

import shaped_transformer as st
from shaped_transformer.explore import limits, words
from shaped_transformer.explore.state import DESIGN, INPUT, State, read


def of(query: str) -> Any:
    """The only design of an address that has no problem."""
    reading = read(State.of_query(query))
    assert not reading.problems
    return reading.subjects["a"]


def problems(query: str) -> dict[str, str]:
    return read(State.of_query(query)).problems


def test_a_new_page_has_an_empty_address_and_no_problem() -> None:
    assert State.start().query == ""
    assert State.of_query("") == State.start()
    assert of("").architecture == st.shaped_transformer(width=128, depth=64, gamma=0.25)


@given(some.dictionaries(some.sampled_from([*DESIGN, *INPUT, "b.gamma", "b.preset"]), some.text(max_size=20)))
def test_an_address_restores_any_state(texts: dict[str, str]) -> None:
    start = State.start()
    first = dict(start.designs[0]) | {n: t for n, t in texts.items() if n in DESIGN}
    second = dict(start.designs[1]) | {n[2:]: t for n, t in texts.items() if n.startswith("b.")}
    state = State(dict(start.input) | {n: t for n, t in texts.items() if n in INPUT}, (first, second), both=True)
    again = State.of_query("?" + state.query)
    assert (again.input, again.designs, again.both) == (state.input, state.designs, state.both)
    read(again)  # whatever the fields hold, there is an answer


@pytest.mark.parametrize("query", ["nothing=1", "&&&=", "%ff%fe", "a=1&" * 500, "gamma", "designs=7"])
def test_a_strange_address_is_a_new_page(query: str) -> None:
    assert not problems(query) or set(problems(query)) == {"a.gamma"}


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("gamma=1.5", "a.gamma", r"scale \(gamma\) must lie in \(0, 1\]"),
        ("heads=3", "a.heads", "3 heads do not divide the width 128"),
        ("width=4", "a.width", "rank 8 cannot come from vectors of width 4"),
        ("tokens=65", "tokens", "at most 64 tokens"),
        ("correlation=-0.5", "correlation", r"must lie in \[-0.1429, 1\]"),
        ("source=text&text=", "text", "no words"),
        ("source=text&text=" + "x" * 2001, "text", "at most 2,000 characters"),
        ("depth=100000", "a.depth", "this page draws paths of at most"),
        ("hidden_width=1000000", "a.hidden_width", "this page draws paths of at most"),
        ("preset=other", "a.preset", "Preset must be one of"),
        ("designs=2&b.tau0=0", "b.tau0", "greater than 0"),
        ("c_plus=1e200", "a.c_plus", "neither vanishes nor overflows"),
    ],
)
def test_a_problem_is_explained_beside_its_field(query: str, field: str, message: str) -> None:
    found = problems(query)
    assert list(found) == [field]
    assert re.search(message, found[field])
    assert "\n" not in found[field]


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("gamma=1.5&heads=3", {"a.gamma": "must lie in", "a.heads": "3 heads do not divide the width 128"}),
        ("width=x&gamma=1.5", {"a.width": "a number is expected", "a.gamma": "must lie in"}),
        ("width=x&heads=3", {"a.width": "a number is expected"}),  # 3 may divide the width that is meant
        ("gamma=2&heads=5&correlation=-0.5", {"a.gamma": "must lie", "a.heads": "5 heads", "correlation": "must lie"}),
        ("depth=100000&width=200000", {"a.width": "depth 100,000 and width 2", "a.depth": "width 200,000"}),
        ("designs=2&gamma=2&b.heads=3", {"a.gamma": "must lie in", "b.heads": "3 heads do not divide"}),
    ],
)
def test_all_problems_are_explained_at_once(query: str, fields: dict[str, str]) -> None:
    found = problems(query)
    assert set(found) == set(fields)
    for name, words_ in fields.items():
        assert words_ in found[name]


def test_fields_without_effect_are_not_read() -> None:
    assert of("preset=deep_linear&gamma=nonsense").architecture == st.deep_linear(128, 64)
    tanh = st.ShapedSmooth("tanh", a=1.0)
    assert of("activation=shaped-tanh&c_plus=3").architecture == st.shaped_transformer(
        128, 64, gamma=0.25, activation=tanh
    )


@pytest.mark.parametrize(
    "query",
    [
        "",
        "gamma=&tau0=0.5&c_plus=1&heads=4&mask=causal&norm=pre",
        "activation=shaped-relu&c_minus=-0.5",
        "activation=gelu&hidden_width=64",
        "activation=shaped-tanh&source=text&text=it's+the+same,+the+same",
        "preset=pre_norm_transformer&heads=8",
        "preset=shaped_mlp&activation=shaped-erf",
        "preset=deep_linear&tokens=3&correlation=0.9",
    ],
)
def test_copied_python_and_json_are_the_design(query: str) -> None:
    import json

    subject = of(query + "&width=32&depth=3&tokens=3")
    space: dict[str, Any] = {}
    exec(re.sub("samples=[0-9]+", "samples=4", words.as_python(subject)), space)
    assert space["arch"] == subject.architecture
    np.testing.assert_array_equal(space["v0"], subject.v0)
    assert st.Architecture.from_dict(json.loads(words.as_json(subject))) == subject.architecture


def test_the_copied_command_draws_the_design(run: Any, tmp_path: Any) -> None:
    import json
    import shlex

    (tmp_path / words.TEXT_FILE).write_text("it is the same, the same", encoding="utf-8")
    subject = of("width=16&depth=2&tokens=4&activation=shaped-tanh&source=text&text=it+is+the+same,+the+same")
    command = words.as_command(subject).splitlines()[-1]
    code, out, _ = run(*shlex.split(command)[1:], "--no-stability", "--json")
    assert code == 0
    report = json.loads(out)
    space: dict[str, Any] = {}
    exec(words.as_python(subject), space)
    assert space["chain"].samples == limits.paths_for(subject.architecture, 4)
    assert report["verdict"]["sentence"] == st.statistics.verdict(space["chain"]).sentence
    assert st.Architecture.from_dict(report["architecture"]) == subject.architecture
    np.testing.assert_array_equal(report["initial_covariance"], subject.v0)


def test_larger_designs_have_smaller_batches_and_fewer_paths() -> None:
    small, large = st.shaped_transformer(64, 8), st.shaped_transformer(1024, 200)
    assert limits.batch_for(small, 4) == limits.BATCH > limits.batch_for(large, 8) >= 1
    assert limits.paths_for(small, 4) == limits.MOST_PATHS > limits.paths_for(large, 32) >= limits.FEWEST_PATHS
    with pytest.raises(st.InputError, match="the command compare draws them"):
        limits.networks_for(st.shaped_transformer(4096, 100), 8)

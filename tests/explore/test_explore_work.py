"""The work behind the page: pictures from the first paths on, one job for a client, none for those that left."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("dash")

import shaped_transformer as st
from shaped_transformer.explore import desk as desk_module
from shaped_transformer.explore import limits, texts, work
from shaped_transformer.explore.desk import Desk
from shaped_transformer.explore.pictures import TITLES, aligned, axes, left_by, pictures
from shaped_transformer.explore.server import present
from shaped_transformer.explore.state import State, Subject, read
from shaped_transformer.explore.work import Study, advance
from shaped_transformer.views.parallel import cancel_when

pytestmark = pytest.mark.slow

SMALL = "width=16&depth=4&tokens=3"


def subject(query: str = SMALL) -> Subject:
    return read(State.of_query(query)).subjects["a"]


@pytest.fixture(autouse=True)
def _little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MOST_PATHS", 128), ("MOST_CHANGED", 16), ("MOST_TESTED", 80), ("MOST_NETWORKS", 16)):
        monkeypatch.setattr(limits, name, value)


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk(present)
    yield made
    made.close()
    wait_until(lambda: not any(t.name == "shaped-transformer explore" for t in threading.enumerate()))


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def finished(study: Study) -> list[Study]:
    """A study after each of its steps."""
    steps = [study]
    while not steps[-1].done:
        steps.append(advance(steps[-1]))
    return steps


def test_the_first_step_gives_a_picture_and_each_refines_it() -> None:
    steps = finished(Study(subject()))
    assert steps[1].paths("chain") == limits.BATCH
    chain = [step.paths("chain") for step in steps]
    assert chain == sorted(chain)
    assert steps[-1].paths("chain") == steps[-1].paths("sde") == 128
    for step in steps[1:]:
        first = steps[1].ensembles["chain"].covariance
        np.testing.assert_array_equal(step.ensembles["chain"].covariance[: len(first)], first)
    assert steps[-1].advice is not None
    assert steps[-1].stability is not None


def test_real_networks_come_when_they_are_wanted() -> None:
    done = finished(Study(subject()))[-1]
    assert "network" not in done.ensembles
    more = finished(replace(done, networks=True, done=False))[-1]
    assert more.paths("network") == 16
    assert list(more.ensembles) == ["network", "chain", "sde"]


def test_what_cannot_be_drawn_is_noted() -> None:
    study = finished(Study(subject(SMALL + "&preset=skipless_transformer")))[-1]
    assert "sde" not in study.ensembles
    assert any(note.startswith("No SDE: layer 0") for note in texts.notes(study))
    assert texts.advised(study).startswith("No advice: gamma is the strength of branches beside a skip")
    large = subject("width=4096&depth=200&tokens=4")
    assert texts.notes(work._draw_networks(Study(large)))[0].startswith(
        "No real networks: real networks of width 4,096"
    )


def test_a_step_that_is_not_wanted_ends_at_once() -> None:
    with pytest.raises(InterruptedError), cancel_when(lambda: True):
        advance(Study(subject("depth=512&tokens=16")))


@pytest.mark.parametrize(
    "query", [SMALL, "width=16&depth=4&tokens=1", SMALL + "&correlation=1", "preset=deep_linear&depth=1"]
)
def test_pictures_are_finite_and_those_of_the_ensembles(query: str) -> None:
    study = advance(replace(Study(subject(query)), networks=True))
    study = advance(advance(study))
    made = pictures(study.ensembles)
    assert list(made) == list(TITLES)
    json.dumps(made, allow_nan=False)
    chain = study.ensembles["chain"]
    line = [t for t in made["norm"]["data"] if t["name"] == "exact chain"][-1]
    np.testing.assert_allclose(line["y"], np.median(chain.mean_token_norm(), axis=0), rtol=1e-5)
    assert line["x"] == chain.depth.tolist()


def test_networks_outside_the_window_stay_there() -> None:
    subject_ = subject("preset=skipless_transformer&width=16&depth=20&tokens=3")
    left = left_by(advance(Study(subject_)).ensembles["chain"])
    assert not left[:, 0].any()
    assert left[:, -1].any()
    assert (np.diff(left.astype(int), axis=1) >= 0).all()


def test_words_say_what_was_found() -> None:
    study = finished(Study(subject()))[-1]
    assert texts.word(study) in ("stable", "losing rank")
    assert texts.progress(study) == "128 draws of the exact chain, 128 draws of the SDE. Done."
    rows = {row[0]: row for row in texts.facts(study)}
    assert rows["healthy networks"][1].endswith(" %")
    assert rows["effective rank"][3] == "≥ 1.44 (input 2.89)"
    assert {row[0] for row in texts.table(study)} >= {"effective rank", "ρ₁₂"}
    assert [row[0] for row in texts.effects(study)] == ["γ +10 %", "τ0 +10 %"]
    assert "γ = " in texts.advised(study)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0, "0"), (1, "1.00"), (-0.25, "−0.250"), (120.4, "120"), (999.9, "1,000"), (1234.5, "1,234"), (1e4, "10⁴")],
        *[(2e-5, "2·10⁻⁵"), (1.26e30, "1.3·10³⁰"), (0.001, "0.00100"), (99.99, "100")],
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert texts.number(value) == text


def test_two_designs_have_the_same_axes() -> None:
    small, large = (pictures(advance(Study(subject(q))).ensembles) for q in (SMALL, SMALL + "&gamma=1&depth=9"))
    one, other = aligned(small, large)
    for title in TITLES:
        assert axes(one[title]) == axes(other[title])
        for before in (small, large):
            for (low, high), (least, most) in zip(axes(one[title]), axes(before[title]), strict=True):
                assert low <= least < most <= high
        assert one[title]["layout"]["yaxis"].get("tickvals") == other[title]["layout"]["yaxis"].get("tickvals")
    single = pictures(advance(Study(subject("width=16&depth=4&tokens=1"))).ensembles)
    assert axes(aligned(single, large)[0]["correlation"]) == [None, None]


def test_nothing_that_is_drawn_lies_outside_its_axes() -> None:
    study = advance(advance(advance(replace(Study(subject()), networks=True))))
    for picture in pictures(study.ensembles).values():
        for axis, along in (("xaxis", "x"), ("yaxis", "y")):
            low, high = picture["layout"][axis]["range"]
            for trace in picture["data"]:
                shown = np.asarray(trace[along], dtype=float)
                shown = np.log10(shown) if picture["layout"][axis].get("type") == "log" else shown
                assert (low <= shown).all()
                assert (shown <= high).all()


def test_a_client_sees_newer_results_until_it_is_done(desk: Desk) -> None:
    client = desk.client("one")
    client.want({"a": subject()})
    held: dict[str, int] = {}
    counts = []
    while True:
        found = client.newer(held, 10)
        if not found:
            break
        held = {slot: shown.version for slot, shown in found.items()}
        counts.append(found["a"].study.paths("chain"))
        assert found["a"].pictures is not None
    assert counts == sorted(counts)
    assert counts[-1] == 128
    assert not client.working


def test_a_hundred_fast_changes_leave_one_job(desk: Desk) -> None:
    client = desk.client("one")
    started = threading.active_count()
    for number in range(100):
        client.want({"a": subject(f"depth={100 + number}")})
        assert sum(t.name == "shaped-transformer explore" for t in threading.enumerate()) <= 1
    found = client.newer({}, 20)
    assert found["a"].study.subject.architecture.depth == 199
    assert threading.active_count() <= started + 4  # the client's thread, and those that draw


def test_a_design_that_stays_keeps_its_paths(desk: Desk) -> None:
    client = desk.client("one")
    first, second = subject(), subject(SMALL + "&gamma=0.3")
    client.want({"a": first, "b": second})
    wait_until(lambda: not client.working)
    before = client.shown("a")
    client.want({"a": first, "b": subject(SMALL + "&gamma=0.4")})
    assert client.shown("a") is before
    assert client.shown("b") is None
    wait_until(lambda: not client.working)
    assert client.shown("a") is before


def test_clients_do_not_disturb_each_other(desk: Desk) -> None:
    one, two = desk.client("one"), desk.client("two")
    one.want({"a": subject()})
    two.want({"a": subject(SMALL + "&gamma=0.4")})
    wait_until(lambda: not one.working and not two.working)
    gammas = [c.shown("a").study.subject.architecture.block[0].scale for c in (one, two)]  # type: ignore[union-attr]
    assert gammas == [0.25, 0.4]


def test_clients_that_left_are_not_worked_for_and_are_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_PATHS", 10**6)
    client = desk.client("one")
    client.want({"a": subject("width=64&depth=64")})
    wait_until(lambda: client.shown("a") is not None)
    monkeypatch.setattr(desk_module, "PATIENCE", 0.3)
    wait_until(lambda: not client.working, 10)
    assert not client.shown("a").study.done  # type: ignore[union-attr]
    monkeypatch.setattr(desk_module, "MEMORY", 0.0)
    desk.client("two")
    assert list(desk.clients) == ["two"]


def test_there_are_few_clients(desk: Desk) -> None:
    for number in range(30):
        desk.client(str(number))
    assert len(desk.clients) == desk_module.MOST_CLIENTS
    assert "29" in desk.clients


def test_a_mistake_of_ours_is_said_and_ends_the_work(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Study) -> Any:
        raise RuntimeError("the cause")

    monkeypatch.setattr(desk_module, "advance", fail)
    client = desk.client("one")
    client.want({"a": subject()})
    found = client.newer({}, 10)
    assert found["a"].study.notes == ("This could not be drawn: the cause.",)
    assert isinstance(found["a"].study.subject.architecture, st.Architecture)

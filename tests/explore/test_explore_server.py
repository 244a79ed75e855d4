"""The server: it answers its own page only, and says no in one line."""

import io
import json
import uuid
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dash")

import shaped_transformer as st
from shaped_transformer.explore import limits, server
from shaped_transformer.explore.callbacks import FIELDS, IDS
from shaped_transformer.explore.controls import START
from shaped_transformer.explore.desk import Desk
from shaped_transformer.explore.pictures import TITLES, axes

TOKEN, PORT = "secret", 8050
HOST = {"Host": f"127.0.0.1:{PORT}"}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Any, Any, Desk]]:
    desk = Desk(server.present)
    app = server.application(desk, TOKEN, PORT)
    yield app, app.server.test_client(), desk
    desk.close()


def inputs(app: Any, output: str, changed: str, values: dict[str, Any]) -> dict[str, Any]:
    """The request of a callback, as the page sends it."""
    found = next(one for key, one in app.callback_map.items() if output in key)
    name = next(key for key in app.callback_map if output in key)

    def filled(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [part | {"value": values.get(part["id"])} for part in parts]

    outputs = [{"id": o.component_id, "property": o.component_property} for o in found["output"]]
    return {
        "output": name,
        "outputs": outputs,
        "inputs": filled(found["inputs"]),
        "state": filled(found["state"]),
        "changedPropIds": [changed],
    }


def values(**given: Any) -> dict[str, Any]:
    start = {name: START[field] for name, (field, _) in zip(IDS, FIELDS, strict=True)}
    return start | {"both": False, "tick": 0, "client": uuid.uuid4().hex, "held": None} | given


def ask(served: Any, output: str, changed: str, **given: Any) -> dict[str, Any]:
    app, client, _ = served
    body = inputs(app, output, changed, values(**given))
    response = client.post(f"/{TOKEN}/_dash-update-component", json=body, headers=HOST)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.text)["response"]
    return answer


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/{TOKEN}/", HOST, 200),
        (f"/{TOKEN}/", {"Host": f"localhost:{PORT}"}, 200),
        (f"/{TOKEN}/?gamma=0.5", HOST, 200),
        ("/", HOST, 403),
        ("/wrong/", HOST, 403),
        (f"/{TOKEN[:-1]}/", HOST, 403),
        (f"/{TOKEN}/", {"Host": "evil.example"}, 403),
        (f"/{TOKEN}/", {"Host": "127.0.0.1:1"}, 403),
        (f"/{TOKEN}/", {"Host": "127.0.0.1"}, 403),
        (f"/{TOKEN}/", HOST | {"Origin": "http://evil.example"}, 403),
        (f"/{TOKEN}/", HOST | {"Origin": f"http://127.0.0.1:{PORT}"}, 200),
        (f"/{TOKEN}/?text=" + "x" * limits.MOST_REQUEST, HOST, 413),
        ("/_dash-layout", HOST, 403),
        (f"/{TOKEN}/_dash-layout", HOST, 200),
        (f"/{TOKEN}/_mcp", HOST | {"Accept": "text/event-stream"}, 200),  # the page, as for every path
        (f"/{TOKEN}/download/{'0' * 32}/a/dataset.zip", HOST, 404),
        (f"/{TOKEN}/download/nobody/a/dataset.zip", HOST, 404),
    ],
)
def test_only_the_page_itself_is_answered(served: Any, path: str, headers: dict[str, str], status: int) -> None:
    response = served[1].get(path, headers=headers)
    assert response.status_code == status
    if status != 200:
        assert "Traceback" not in response.text
        assert len(response.text) < 200


def test_a_page_may_load_nothing_from_elsewhere(served: Any) -> None:
    response = served[1].get(f"/{TOKEN}/", headers=HOST)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe-eval" not in policy
    assert "script-src 'self' 'sha256-" in policy
    assert response.headers["Cache-Control"] == "no-store"
    assert "https://" not in response.text


def test_a_large_request_is_refused(served: Any) -> None:
    path = f"/{TOKEN}/_dash-update-component"
    response = served[1].post(path, data="x" * (limits.MOST_REQUEST + 1), headers=HOST)
    assert response.status_code == 413
    assert "at most" in response.text


def test_an_address_opens_its_state(served: Any) -> None:
    client = served[1]
    body = {
        "output": "page.children",
        "outputs": {"id": "page", "property": "children"},
        "inputs": [{"id": "address", "property": "search", "value": "?gamma=0.37&designs=2"}],
        "changedPropIds": ["address.search"],
    }
    response = client.post(f"/{TOKEN}/_dash-update-component", json=body, headers=HOST)
    text = response.text
    assert '"value":"0.37"' in text.replace(" ", "")
    assert "What the controls mean" in text


def test_a_change_is_answered_with_errors_copies_and_address(served: Any) -> None:
    answer = ask(served, "a-gamma-error", "a-gamma.value", **{"a-gamma": "0.4", "a-heads": "4"})
    assert answer["query"]["data"] == "gamma=0.4&heads=4"
    assert "gamma=0.4, heads=4" in answer["a-python"]["children"]
    assert not any(answer[f"{name}-error"]["children"] for name in IDS)
    assert answer["text-field"]["hidden"]
    assert answer["b-section"]["hidden"]
    answer = ask(served, "a-gamma-error", "a-gamma.value", **{"a-gamma": "1.5"})
    assert "must lie in (0, 1]" in answer["a-gamma-error"]["children"]
    assert "a-python" not in answer
    answer = ask(served, "a-gamma-error", "text.value", source="text", text="x" * 5000)
    assert "at most 2,000 characters" in answer["text-error"]["children"]
    answer = ask(served, "a-gamma-error", "a-preset.value", **{"a-preset": "deep_linear", "a-gamma": None})
    assert answer["a-gamma-field"]["hidden"]


def test_a_change_is_answered_with_pictures_and_files(served: Any) -> None:
    name = uuid.uuid4().hex
    small = {"a-width": "16", "a-depth": "3", "tokens": "3", "client": name}
    answer = ask(served, "a-norm-picture", "a-width.value", **small)
    for _ in range(20):  # a slow machine may need longer than a change waits
        if "a-norm-picture" in answer:
            break
        answer = ask(served, "a-norm-picture", "tick.data", **small)
    assert answer["a-norm-picture"]["figure"]["data"]
    assert answer["held"]["data"]["versions"]["a"] > 0
    assert "b-norm-picture" not in answer
    held = answer["held"]["data"]
    assert ask(served, "a-norm-picture", "tick.data", **small, held=held)["held"]["data"]["asked"] == held["asked"] + 1

    client = served[1]
    dataset = client.get(f"/{TOKEN}/download/{name}/a/dataset.zip", headers=HOST)
    names = zipfile.ZipFile(io.BytesIO(dataset.data)).namelist()
    assert "dataset.zarr/chain/mean_token_norm/.zarray" in names
    picture = client.get(f"/{TOKEN}/download/{name}/a/picture.png", headers=HOST)
    assert picture.data.startswith(b"\x89PNG")
    served[2].client(name).leave()


def test_two_designs_have_the_same_axes_and_lose_them_again(served: Any) -> None:
    name = uuid.uuid4().hex
    given: dict[str, Any] = {"a-width": "16", "a-depth": "3", "tokens": "3"}
    given |= {"b-width": "16", "b-depth": "6", "b-gamma": "0.9"}
    given |= {"both": True, "client": name}
    pictures: dict[str, Any] = {}
    held = None
    changed = "a-width.value"
    while held is None or set(held["versions"]) != {"a", "b"}:
        answer = ask(served, "a-norm-picture", changed, **given, held=held)
        held, changed = answer["held"]["data"], "tick.data"
        pictures |= {key: one["figure"] for key, one in answer.items() if key.endswith("-picture")}
        if answer.get("a-spoken", {}).get("children"):
            assert answer["a-spoken"]["children"].startswith("A: ")
    for title in TITLES:
        assert axes(pictures[f"a-{title}-picture"]) == axes(pictures[f"b-{title}-picture"])
    assert axes(pictures["a-norm-picture"])[0][1] > 6
    alone = ask(served, "a-norm-picture", "both.data", **given | {"both": False}, held=held)
    assert 3 < axes(alone["a-norm-picture"]["figure"])[0][1] < 4
    assert "b-norm-picture" not in alone
    served[2].client(name).leave()


@pytest.mark.parametrize("held", ["text", {"axes": 1, "versions": {}}, {"axes": {"a": "x", "b": [1]}, "asked": 3}])
def test_what_a_page_claims_to_show_is_not_believed(served: Any, held: Any) -> None:
    answer = ask(served, "a-norm-picture", "tick.data", **{"a-width": "16", "a-depth": "2"}, held=held)
    assert answer["held"]["data"]["asked"] >= 1


def test_only_what_changed_is_sent(served: Any) -> None:
    first = ask(served, "a-gamma-error", "a-gamma.value", checked=None)
    assert {"a-width-error", "a-gamma-field", "second", "a-section"} <= set(first)
    known = first["checked"]["data"]
    later = ask(served, "a-gamma-error", "a-gamma.value", checked=known, **{"a-gamma": "0.4"})
    assert set(later) == {"a-python", "a-json", "a-command", "query", "checked"}
    assert set(ask(served, "a-gamma-error", "a-gamma.value", checked=["no digest"])) == set(first)


def test_a_text_of_full_length_is_no_oversized_request(served: Any) -> None:
    text = {"source": "text", "text": "語 " * (limits.MOST_TEXT // 2)}
    known = ask(served, "a-gamma-error", "text.value", checked=None, **text)["checked"]["data"]
    assert "query" not in ask(served, "a-gamma-error", "text.value", checked=known, **text)


def test_wrong_fields_draw_nothing(served: Any) -> None:
    wrong = {"a-width": "none"}
    assert ask(served, "a-gamma-error", "a-width.value", **wrong)["a-section"]["className"] == "design stale"
    answer = ask(served, "a-norm-picture", "a-width.value", **wrong)
    assert "To see this design, correct Width n." in json.dumps(answer["a-summary"])
    assert answer["a-spoken"]["children"] == ""
    assert not answer["held"]["data"]["working"]


def test_a_port_that_is_taken_is_an_error_that_names_the_way_out() -> None:
    bound = server._bind(0)
    try:
        with pytest.raises(st.InputError, match=r"cannot be used .*: choose another --port, or 0"):
            server._bind(bound.getsockname()[1])
    finally:
        bound.close()
    with pytest.raises(st.InputError, match="cannot be used"):
        server._bind(99_999)


def test_the_command_prints_the_address(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(server.Server, "run", lambda self: self.http.server_close())
    monkeypatch.setattr("webbrowser.open", opened.append)
    code, out, _ = run("explore", "--no-open", "--json")
    assert code == 0
    url = json.loads(out)["url"]
    assert url.startswith("http://127.0.0.1:")
    assert len(url.split("/")[3]) >= 32
    code, out, _ = run("explore")
    assert opened == [out.strip()] != [url]

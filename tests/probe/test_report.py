"""The report of a probe: one page that needs nothing else, whatever the layers are called, and works in a browser."""

import json
import re
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("plotly")

import xarray

from shaped_transformer.errors import InputError, MissingExtra, StorageError
from shaped_transformer.probe.comparison import Comparison, band
from shaped_transformer.probe.measures import MEASURES
from shaped_transformer.probe.report import page, write_report
from shaped_transformer.probe.result import ProbeResult
from shaped_transformer.probe.verdict import Finding, Verdict, judge

CHROMIUM = Path("/usr/bin/chromium")
SETTINGS: dict[str, Any] = {
    "model": "Model",
    "parameters": 1234567,
    "loss": 0.5,
    "not_finite": None,
    "gradient": "measured",
    "max_tokens": 512,
    "sampled": False,
    "seed": 0,
    "attention": "eager",
}
NASTY = "</script><img src=https://example.org/x.png onerror=alert(1)>&\"'"


def measured(blocks: int = 4, sequences: int = 3, names: list[str] | None = None, **settings: Any) -> ProbeResult:
    """A result with all numbers between 0.5 and 1, of an input and so many blocks."""
    random = np.random.default_rng(0)
    layers = names or ["model.blocks.input", *(f"model.blocks.{i}" for i in range(blocks))]
    size = (len(layers), sequences)
    variables: dict[str, Any] = {name: (("layer", "sequence"), random.uniform(0.5, 1, size)) for name in MEASURES}
    variables["branch_share"][1][0] = 0
    variables["branch_known"] = (("layer",), np.arange(len(layers)) > 0)
    variables["tokens"] = (("layer", "sequence"), np.full(size, 7))
    weights = [f"{name}.weight" for name in layers[1:] for _ in range(12)]
    variables["weight_gradient"] = (("weight",), np.append(random.uniform(0.1, 1, len(weights) - 1), 0.0))
    for name in ("entropy", "from_uniform", "from_identity"):
        variables[f"attention_{name}"] = (("attention", "head"), random.uniform(size=(len(layers) - 1, 2)))
    coordinates = {"layer": layers, "sequence": range(sequences), "weight": weights, "attention": layers[1:]}
    return ProbeResult(xarray.Dataset(variables, coordinates), SETTINGS | settings)


def compared(result: ProbeResult) -> Comparison:
    """A comparison in which the effective rank of the third layer is unusual."""
    random = np.random.default_rng(1)
    bands = {}
    for name, measure in MEASURES.items():
        value = result.mean(name)
        draws = np.maximum(value, 1e-3) * random.uniform(0.9, 1.1, (20, len(value)))
        if name == "effective_rank":
            draws[:, 2] *= 4
        bands[name] = band(value, draws, measure)
    return Comparison(result.layers, bands, "as its own code initialises it", 20)


def table(text: str, label: str = "All numbers of each layer") -> list[list[str]]:
    """The cells of a table's rows."""
    body = text.split(f'aria-label="{label}"')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.DOTALL)
    return [[unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall(r"<t[dh].*?</t[dh]>", row)] for row in rows]


def markup(text: str) -> str:
    """The page without what its scripts hold."""
    return re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


def test_the_table_has_each_layer_with_its_numbers_and_band() -> None:
    result = measured()
    comparison = compared(result)
    rows = table(page(result, comparison))
    assert [row[0] for row in rows] == result.layers
    assert {len(row) for row in rows} == {1 + len(MEASURES)}
    column = 1 + list(MEASURES).index("token_norm")
    expected, value = comparison.bands["token_norm"], result.mean("token_norm")
    assert rows[3][column].split() == [
        f"{x:.3g}" if x else "–" for x in (value[3], expected.low[3], 0, expected.high[3])
    ]
    assert rows[0][1 + list(MEASURES).index("branch_share")] == "–"


def test_what_is_unusual_is_marked() -> None:
    result = measured()
    comparison = compared(result)
    assert "model.blocks.1" in comparison.unusual()["effective_rank"]
    text = page(result, comparison)
    cell = table(text)[2][1 + list(MEASURES).index("effective_rank")]
    assert "unusual" in cell
    assert "hardly ever" in markup(text)
    assert "hardly ever" not in markup(page(result))


def test_the_verdict_comes_first() -> None:
    finding = Finding("collapse", "model.blocks.2", "Tokens collapse at model.blocks.2.", "Weaken the branches.")
    text = markup(page(measured(), None, Verdict((finding,))))
    places = [text.index(part) for part in (finding.sentence, finding.layer, finding.advice, 'id="layers"', "<table>")]
    assert places == sorted(places)
    assert text.count(finding.sentence) == 1
    assert 'class="verdict bad"' in text
    good = markup(page(measured(), None, Verdict(())))
    assert 'class="verdict good"' in good
    assert 'class="verdict' not in markup(page(measured()))


def test_the_real_verdict_fits() -> None:
    result = measured()
    verdict = judge(result, compared(result))
    assert all(finding.name in page(result, None, verdict) for finding in verdict.findings)


def test_names_are_escaped_everywhere() -> None:
    names = [f"{NASTY}.input", f"{NASTY}.0", f"{NASTY}.1"]
    result = measured(names=names, model=NASTY, not_finite=f"{NASTY}.2", gradient=NASTY)
    finding = Finding(NASTY, NASTY, NASTY, NASTY)
    text = page(result, compared(result), Verdict((finding,)))
    assert "<img" not in text.split("plotly.js v")[0]
    assert [row[0] for row in table(text)] == names
    figures = text.split('id="figures">')[1].split("</script>")[0]
    assert "<" not in figures
    assert "&lt;/script&gt;" in figures  # plotly reads markup in texts


def test_nothing_outside_is_asked_for() -> None:
    text = page(measured(), compared(measured()))
    outside = re.findall(r"<[^>]*\b(?:src|href|action|data|poster)\s*=\s*[\"']?([^\"'\s>]+)", markup(text))
    assert outside == ["data:,"]
    assert not re.search(r"@import|url\(", markup(text))
    assert "default-src 'none'" in text


def test_what_was_not_measured_is_left_out_and_said() -> None:
    result = measured(not_finite="model.blocks.4", gradient="the loss is infinite or undefined")
    less = result.data.drop_vars(
        [name for name in map(str, result.data.variables) if "gradient" in name or "attention" in name]
    )
    text = markup(page(ProbeResult(less.drop_vars("weight"), result.settings)))
    assert "There are no gradients: the loss is infinite or undefined." in text
    assert "from <code>model.blocks.4</code> on" in text
    assert "Gradients of the parameters" not in text
    assert 'id="attention"' not in text


def figure_of_layers(text: str) -> Any:
    """What plotly draws of the layers."""
    return json.loads(text.split('id="figures">')[1].split("</script>")[0])["layers"]


def test_layers_that_are_not_finite_are_shaded() -> None:
    text = page(measured(not_finite="model.blocks.4"))
    for layout in figure_of_layers(text)["layouts"]:
        shades = [one for one in layout["shapes"] if one["type"] == "rect"]
        assert {one["xref"] for one in shades} == {f"x{i}" for i in range(1, 7)}
        assert {(one["x0"], one["x1"]) for one in shades} == {(4.5, 5.5)}
        assert layout["xaxis1"]["range"] == [-0.5, 5.5]
    assert "not finite from model.blocks.4 on" in markup(text)
    whole = figure_of_layers(page(measured()))["layouts"][0]
    assert [one for one in whole["shapes"] if one["type"] == "rect"] == []
    assert whole["xaxis1"]["range"] == [-0.5, 4.5]


def test_a_band_has_a_gap_where_nothing_is_known() -> None:
    names = ["encoder.input", "encoder.0", "encoder.1", "decoder.input", "decoder.0"]
    result = measured(names=names)
    result.data["branch_known"] = (("layer",), np.array([False, True, True, False, True]))
    filled = [one for one in figure_of_layers(page(result, compared(result)))["data"] if one.get("fill") == "toself"]
    assert filled[3]["x"] == [1, 2, 2, 1, None, 4, 4, None]


def test_layers_without_gradient_are_named_and_left_out() -> None:
    reason = "no gradient comes to model.blocks.input"
    result = measured(no_gradient={"model.blocks.input": reason})
    result.data["gradient_known"] = (("layer",), np.arange(5) > 0)
    text = page(result, compared(result))
    assert f"Some layers have no gradient: {reason}." in markup(text)
    column = 1 + list(MEASURES).index("gradient_norm")
    assert [row[column] == "–" for row in table(text)] == [True, False, False, False, False]


def test_parameters_without_gradient_are_named() -> None:
    text = markup(page(measured()))
    assert "1 of 48 parameters have no gradient: <code>model.blocks.3.weight</code>." in text
    assert len(table(text, "Gradient norm of each parameter")) == 48


def test_settings_and_version_are_at_the_end() -> None:
    text = markup(page(measured()))
    end = text[text.index('id="settings"') :]
    assert "<dt>parameters</dt><dd>1,234,567</dd>" in end
    assert "<dt>shaped-transformer</dt>" in end


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(MissingExtra, match=re.escape("pip install 'shaped-transformer[probe]'")):
        write_report(tmp_path / "report.html", measured())
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_of_another_model_is_refused() -> None:
    with pytest.raises(InputError, match="other layers"):
        page(measured(3), compared(measured(4)))


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        write_report(tmp_path / "file" / "report.html", measured())


def becomes(view: Any, expression: str) -> None:
    """Wait until an expression is true; the page's own policy forbids Playwright's way."""
    for _ in range(100):
        if view.evaluate(expression):
            return
        view.wait_for_timeout(50)
    pytest.fail(f"never true: {expression}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium of the system."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Opens the report of a 96-layer model at a width; afterwards there must be no error and no request."""
    result = measured(96)
    comparison = compared(result)
    path = tmp_path / "report.html"
    write_report(path, result, comparison, judge(result, comparison))
    complaints: list[str] = []
    pages = []

    def guard(route: Any) -> None:
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            complaints.append(f"request to {route.request.url[:100]}")
            route.abort()

    def open_at(width: int) -> Any:
        view = browser.new_page(viewport={"width": width, "height": 800})
        pages.append(view)
        view.route(re.compile("^(?!data:|blob:)"), guard)
        view.on("console", lambda message: complaints.append(message.text))
        view.on("pageerror", lambda error: complaints.append(str(error)))
        view.goto(path.as_uri())
        view.wait_for_selector("#layers .scatterlayer .trace")
        return view

    yield open_at
    for view in pages:
        view.close()
    assert complaints == []


@pytest.mark.slow
def test_all_plots_are_drawn_when_they_come_into_view(opened: Any) -> None:
    view = opened(1280)
    assert view.locator("#layers .subplot").count() == 6
    for name, panels in (("weights", 1), ("attention", 3)):
        view.locator(f"#{name}").scroll_into_view_if_needed()
        view.wait_for_selector(f"#{name} .scatterlayer .trace")
        assert view.locator(f"#{name} .subplot").count() == panels


@pytest.mark.slow
def test_hover_names_the_layer_its_value_and_its_band(opened: Any) -> None:
    view = opened(1280)
    box = view.locator("#layers .subplot .bg, #layers .bglayer .bg, #layers .nsewdrag").first.bounding_box()
    view.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = view.wait_for_selector("#layers .hoverlayer .hovertext")
    assert re.search(r"model\.blocks\.\d+token norm.*expected [\d.]+–[\d.]+", label.text_content())


@pytest.mark.slow
def test_the_page_works_by_keyboard(opened: Any) -> None:
    view = opened(1280)
    reached = []
    for _ in range(12):
        view.keyboard.press("Tab")
        reached.append(view.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert "layers" in reached
    assert "All numbers of each layer" in reached
    view.focus("#layers")
    view.keyboard.press("Home")
    view.keyboard.press("ArrowRight")
    view.wait_for_selector("#layers .hoverlayer .hovertext")
    assert view.inner_text("#layers-reading").startswith("model.blocks.0: token norm")
    view.keyboard.press("End")
    assert view.inner_text("#layers-reading").startswith("model.blocks.95: ")
    view.keyboard.press("Escape")
    assert view.inner_text("#layers-reading") == ""


@pytest.mark.slow
def test_the_page_fits_a_phone(opened: Any) -> None:
    view = opened(390)
    assert view.evaluate("document.documentElement.scrollWidth") == 390
    panels = [one.bounding_box() for one in view.locator("#layers .nsewdrag").all()]
    assert len(panels) == 6
    assert all(260 < panel["width"] < 390 for panel in panels)
    assert len({round(panel["x"]) for panel in panels}) == 1
    region = view.get_by_role("region", name="All numbers of each layer")
    region.focus()
    view.keyboard.press("ArrowRight")
    becomes(view, "document.querySelector('.scroll').scrollLeft > 0")
    assert region.bounding_box()["width"] <= 390
    view.set_viewport_size({"width": 1280, "height": 800})
    becomes(view, "document.querySelectorAll('#layers .nsewdrag')[1].getBoundingClientRect().x > 400")


@pytest.mark.slow
def test_a_report_of_96_layers_opens_in_two_seconds(opened: Any) -> None:
    view = opened(1280)
    session = view.context.new_cdp_session(view)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # time of this page, on a busy machine too
    view.reload()
    view.wait_for_selector("#layers .scatterlayer .trace")
    numbers = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert 0 < numbers["TaskDuration"] < 2

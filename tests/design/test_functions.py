"""Functions in definitions: saved by importable names, and without trust loaded only from NumPy and SciPy."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

import shaped_transformer as st
from shaped_transformer.design.definition import Definition, definition
from shaped_transformer.design.functions import NamedFunction, function_name, load_function


def soft(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.tanh(x))


def smooth(function: Any) -> dict[str, Any]:
    """Return a definition with this function, as a file contains it."""
    return {
        "kind": "Architecture",
        "width": 8,
        "depth": 2,
        "block": [
            {
                "kind": "Dense",
                "activation": {
                    "kind": "ShapedSmooth",
                    "phi": {"kind": "Smooth", "f": function, "d2": 0.0, "d3": -2.0},
                    "a": 1.0,
                },
            }
        ],
    }


@pytest.fixture
def untrusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with a module that writes a file `mark` when it is imported."""
    (tmp_path / "untrusted.py").write_text(
        "from pathlib import Path\nimport numpy as np\n"
        "Path(__file__).with_name('mark').write_text('run')\ndef f(x): return np.tanh(x)\n",
        encoding="utf-8",
    )
    (tmp_path / "arch.json").write_text(json.dumps(smooth("untrusted:f")), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "untrusted", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (np.tanh, "numpy:tanh"),
        (np.sinc, "numpy:sinc"),
        (scipy.special.erf, "scipy.special:erf"),
        (scipy.special.expit, "scipy.special:expit"),
        (scipy.special.log_softmax, "scipy.special:log_softmax"),  # its own module is private
    ],
)
def test_functions_of_numpy_and_scipy_are_saved_by_a_name_that_needs_no_trust(function: Any, name: str) -> None:
    assert function_name(function) == name
    assert load_function(name, trust=False) is function


@pytest.mark.parametrize(("function", "d2", "d3"), [(np.tanh, 0.0, -2.0), (scipy.special.expm1, 1.0, 1.0)])
def test_a_definition_with_such_a_function_survives_json(function: Any, d2: float, d3: float) -> None:
    arch = st.shaped_mlp(8, 2, activation=st.ShapedSmooth(st.Smooth(function, d2, d3), 1.0))
    assert st.Architecture.from_dict(json.loads(json.dumps(arch.to_dict()))) == arch


def test_a_function_of_the_user_needs_trust_to_load() -> None:
    arch = st.shaped_mlp(8, 2, activation=st.ShapedSmooth(st.Smooth(soft, 0.0, -2.0), 1.0))
    written = json.loads(json.dumps(arch.to_dict()))
    assert written["block"][0]["activation"]["phi"]["f"] == "test_functions:soft"
    assert st.Architecture.from_dict(written, trust=True) == arch
    with pytest.raises(st.DefinitionError, match=r"'test_functions:soft'.*trust=True.*--trust"):
        st.Architecture.from_dict(written)


@pytest.mark.parametrize("name", ["untrusted:f", "untrusted", "untrusted:", "untrusted:f:g"])
def test_without_trust_a_module_is_not_even_imported(untrusted: Path, name: str) -> None:
    with pytest.raises(st.DefinitionError, match="give trust=True"):
        st.Architecture.from_dict(smooth(name))
    with pytest.raises(st.ShapedTransformerError):
        st.Architecture.from_dict(smooth([name]))
    assert not (untrusted / "mark").exists()
    assert "untrusted" not in sys.modules


def test_files_and_stores_need_trust_for_a_function(untrusted: Path) -> None:
    with pytest.raises(st.DefinitionError, match=r"'untrusted:f'.*--trust"):
        st.Architecture.read(untrusted / "arch.json")
    safe = st.chain.sample(st.shaped_mlp(8, 2), np.eye(2), 3, seed=0).to_xarray()
    data = safe.assign_attrs(architecture=json.dumps(smooth("untrusted:f")))
    data.to_zarr(untrusted / "ensemble.zarr", zarr_format=2)
    with pytest.raises(st.DefinitionError, match=r"^the definition names the function 'untrusted:f'.*trust=True"):
        st.Ensemble.of_xarray(data)
    with pytest.raises(st.DefinitionError, match=r"^the definition names the function 'untrusted:f'.*trust=True"):
        st.Ensemble.load(untrusted / "ensemble.zarr")
    assert not (untrusted / "mark").exists()
    arch = st.Architecture.read(untrusted / "arch.json", trust=True)
    assert st.Ensemble.load(untrusted / "ensemble.zarr", trust=True).architecture == arch
    assert st.Ensemble.of_xarray(data, trust=True).architecture == arch
    assert (untrusted / "mark").exists()


@pytest.mark.parametrize(
    "name",
    [
        "numpy.f2py.__main__:main",
        "numpy.testing:run_threaded",
        "numpy.testing._private.utils:os",
        "numpy:test",
        "numpy:memmap",
        "numpy:_core",
        "numpy:__getattr__",
        "numpy.ctypeslib:load_library",
        "scipy.special:test",
        "scipy.datasets:face",
        "numpy:os",
        ".numpy:tanh",
        "",
    ],
)
def test_without_trust_nothing_that_could_run_code_is_loaded(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(st.DefinitionError):
        load_function(name, trust=False)
    assert set(sys.modules) == before


@definition
class WithFunctions(Definition):
    """A definition with functions inside other types."""

    maybe: NamedFunction | None
    several: tuple[NamedFunction, ...]
    text: str


def test_only_fields_of_functions_are_read_as_their_names(untrusted: Path) -> None:
    made = WithFunctions(np.tanh, (np.sin, np.cos), "untrusted:f")
    assert Definition.from_dict(made.to_dict()) == made
    assert WithFunctions.from_dict(made.to_dict() | {"maybe": None}).maybe is None
    for fields in ({"maybe": "untrusted:f"}, {"several": ["numpy:sin", "untrusted:f"]}):
        with pytest.raises(st.DefinitionError, match="'untrusted:f'"):
            Definition.from_dict(made.to_dict() | fields)
    assert not (untrusted / "mark").exists()


def test_a_constructor_imports_a_function_by_name_without_trust(untrusted: Path) -> None:
    assert st.Smooth("untrusted:f", 0.0, -2.0).f is sys.modules["untrusted"].f
    assert (untrusted / "mark").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "there is no module 'broken'; make it importable, or put it beside the JSON file"),
        ("import nowhere_at_all", "its module raised ModuleNotFoundError.*nowhere_at_all"),
        ("def f(x", "its module raised SyntaxError"),
        ("raise SystemExit(3)", "its module raised SystemExit"),
        ("g = 3", "the module broken has no function 'f'"),
        ("f = 3", "the module broken has no function 'f'"),
    ],
)
def test_a_failed_import_is_explained_in_one_line(
    code: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    if code is not None:
        (tmp_path / "broken.py").write_text(code, encoding="utf-8")
    with pytest.raises(st.DefinitionError, match=message) as caught:
        st.Architecture.from_dict(smooth("broken:f"), trust=True)
    assert "\n" not in str(caught.value)

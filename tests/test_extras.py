"""Extras: a part that lacks one names it, and no extra is imported before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in {packages!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import shaped_transformer as st
try:
    st.{part}
except st.ShapedTransformerError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("part", "packages", "extra"),
    [
        ("bayes.Regressor", ("sklearn",), "bayes"),
        ("bayes.InfiniteWidthKernel", ("sklearn",), "bayes"),
        ("explore", ("dash",), "explore"),
        ("nn", ("torch",), "torch"),
        ("weightless", ("torch",), "torch"),
        ("ntk", ("torch",), "torch"),
        ("probe", ("torch",), "torch"),
        ("rehearse", ("torch",), "torch"),
        ("hf", ("torch",), "hf"),
        ("hf", ("transformers",), "hf"),
        ("training", ("torch",), "training"),
        ("training", ("tokenizers",), "training"),
        ("training", ("tensorboard",), "training"),
    ],
)
def test_a_missing_extra_names_the_command(part: str, packages: tuple[str, ...], extra: str) -> None:
    if "torch" not in packages:
        pytest.importorskip("torch")
    code = BLOCKED.format(packages=packages, part=part)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtra shaped_transformer.")
    assert f"pip install 'shaped-transformer[{extra}]'" in done.stdout


def test_neither_pytorch_nor_hugging_face_is_imported_with_the_library() -> None:
    code = "import sys, shaped_transformer, shaped_transformer.cli; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "matplotlib"} & set(done.stdout.split())


def test_a_wrong_recipe_is_an_error_before_pytorch_is_imported(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    code = (
        "import sys, atexit; from shaped_transformer.cli import main;"
        "sys.argv = ['x', 'train', 'quick.yaml', '--set', 'stepz=3', '--out', 'run'];"
        "atexit.register(lambda: print('torch' in sys.modules)); main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (2, "False")
    assert "no key 'stepz'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_figure_without_its_extra_names_it_and_writes_nothing(tmp_path: Path) -> None:
    code = BLOCKED.format(packages=("torch",), part="PRESETS")
    code += "from shaped_transformer.cli import main; sys.argv = ['x', 'figure', 'gradients', '--quick']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'shaped-transformer[torch]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["train", "quick.yaml", "--out", "run"], ["figure", "training", "--quick"]])
def test_training_without_its_extra_writes_nothing(command: list[str], tmp_path: Path) -> None:
    code = BLOCKED.format(packages=("torch",), part="PRESETS")
    code += f"from shaped_transformer.cli import main; sys.argv = ['x', *{command!r}]; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'shaped-transformer[training]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_part_is_an_attribute_error() -> None:
    import shaped_transformer as st

    with pytest.raises(AttributeError, match="no attribute 'tf'"):
        st.tf  # noqa: B018

"""Damaged files: for any changed bytes, one of the library's own errors says that the file cannot be used."""

import io
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shaped_transformer as st
from shaped_transformer.inputs import from_covariance, from_vectors, read_array

ARCH = st.shaped_transformer(8, 2)
WORDS = (
    *(b"(3, 3)", b"'<f8'", b"'|O'", b"'<f16'", b"'<M8'", b"'<U99999999999'", b"[('a','<f8')]", b"None", b"3L", b"\\8"),
    *(b"(1000000000000, 1000000000000)", b"(-1, 3)", b"9" * 5000, b"-" * 3000, b"[" * 300, b'{"a":' * 100, b"{", b"}"),
    *(b"\x93NUMPY\x02\x00", b"\x93NUMPY\x09\x00", b"PK\x03\x04", b"PK\x05\x06", b"\x00", b"\xff", b"\n", b"'", b'"'),
    *(
        b"1e400",
        b"NaN",
        b"null",
        b"true",
        b'"numpy:info"',
        b'"self"',
        b'"kind"',
        b"1" * 400,
        b"-1",
        b'"\\ud800"',
        b"[]",
    ),
)
"""Bytes that damage may write over or into a file."""


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one to three changes: cut, flipped, overwritten or inserted."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at, word = chance.randrange(len(out) + 1), chance.choice(WORDS)
        change = chance.randrange(5)
        if change == 0:
            del out[at:]
        elif change == 1 and out:
            out[at - 1] = chance.randrange(256)
        elif change == 2:
            out[at : at + len(word)] = word
        elif change == 3:
            out[at:at] = word
        else:
            out[: len(word)] = word
    return bytes(out)


def valid_files() -> Iterator[bytes]:
    """Yield valid files of arrays of many types, and an archive."""
    kinds: tuple[Any, ...] = ("<f8", ">f4", "<f2", np.longdouble, "<c16", "<U1", "<M8[s]", "?", [("a", "<f8")])
    for array in (*(np.eye(2).astype(kind) if kind != "<U1" else np.array(["a"]) for kind in kinds[:-1]), ragged()):
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        yield buffer.getvalue()
    np.savez(buffer := io.BytesIO(), a=np.eye(2))
    yield buffer.getvalue()


def ragged() -> Any:
    return np.array([None, 1.0])


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"PK\x03\x04 and more", b"PK\x05\x06" + bytes(18), b"\x93NUMPY\x01"])
def test_a_file_that_only_begins_like_an_array_is_refused(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(start)
    with pytest.raises(st.InputError, match=r"v.npy is (not a .npy array|an archive of arrays)"):
        from_covariance(tmp_path / "v.npy")


def test_a_damaged_array_is_refused_with_an_error_of_the_library(tmp_path: Path) -> None:
    chance, valid, file = random.Random(0), list(valid_files()), tmp_path / "v.npy"
    refused = 0
    for _ in range(700):
        file.write_bytes(damaged(chance.choice(valid), chance))
        for read in (from_covariance, from_vectors, lambda place: st.ShapedAttention(mask=read_array(place))):
            try:
                read(file)
            except (st.InputError, st.StorageError, st.DefinitionError):
                refused += 1
    assert refused > 1000


@pytest.mark.parametrize("v", [[[1.7e308]], [[1e308, -1e308], [-1e308, 1e308]], [[5e-324]]])
def test_the_largest_and_smallest_numbers_of_float64_are_a_covariance(v: list[list[float]]) -> None:
    np.testing.assert_array_equal(from_covariance(v), v)


def test_a_damaged_definition_is_refused_with_an_error_of_the_library(tmp_path: Path) -> None:
    smooth = st.ShapedSmooth(st.Smooth(np.tanh, 0.0, -2.0), 1.0)
    mask = np.tri(3)
    block = (st.Residual(st.ShapedAttention(heads=2, mask=mask), 0.5), st.Residual(st.MLP(smooth), 0.3, norm="pre"))
    valid = json.dumps(st.Architecture(8, 2, block).to_dict()).encode()
    chance, file, refused = random.Random(0), tmp_path / "arch.json", 0
    for _ in range(1500):
        file.write_bytes(damaged(valid, chance))
        try:
            st.Architecture.read(file)
        except (st.InputError, st.StorageError, st.DefinitionError):
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"kind": "Architecture", "width": %s, "depth": 1, "block": []}' % ("9" * 5000), "is not JSON"),
        (json.dumps(st.shaped_mlp(8, 2).to_dict() | {"width": 10**400}), "width: .*less than or equal to"),
        (json.dumps(st.deep_linear(8, 2).to_dict() | {"self": 1}), "no field 'self'"),
        (json.dumps(st.deep_linear(8, 2).to_dict() | {"__dataclass_self__": 1}), "no field"),
        ("[]", "Architecture is expected"),
        ("null", "Architecture is expected"),
    ],
)
def test_json_that_is_no_definition_is_refused_with_the_reason(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "arch.json").write_text(text, encoding="utf-8")
    with pytest.raises(st.ShapedTransformerError, match=message):
        st.Architecture.read(tmp_path / "arch.json")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("store") / "ensemble.zarr"
    st.chain.sample(ARCH, np.eye(2), 5, seed=0).save(place)
    return place


@pytest.mark.filterwarnings("ignore")  # zarr and xarray warn of damage
def test_a_damaged_store_is_refused_or_read_in_full(store: Path, tmp_path: Path) -> None:
    chance = random.Random(0)
    files = sorted(path.relative_to(store) for path in store.rglob("*") if path.is_file() and path.name != ".zmetadata")
    refused = 0
    for number in range(200):
        place = tmp_path / str(number)
        shutil.copytree(store, place)
        file = place / chance.choice(files)
        if chance.random() < 0.15:
            file.unlink()
        else:
            file.write_bytes(damaged(file.read_bytes(), chance))
        try:
            found = st.Ensemble.load(place)
        except (st.InputError, st.StorageError):
            refused += 1
        else:
            assert np.isfinite(found.covariance).all()
            assert found.covariance.shape == (5, 3, 2, 2)
        shutil.rmtree(place)
    assert refused > 100


@pytest.mark.parametrize("lost", ["covariance/0.0.0.0", "eigenvalues/0.0.0", "initial/0.0", "depth/0"])
def test_a_missing_chunk_is_refused_with_its_name(store: Path, tmp_path: Path, lost: str) -> None:
    shutil.copytree(store, tmp_path / "copy")
    (tmp_path / "copy" / lost).unlink()
    with pytest.raises(st.InputError, match=r"is not an ensemble \((covariance|eigenvalues|initial|depth) "):
        st.Ensemble.load(tmp_path / "copy")


def test_a_store_with_a_codec_that_could_run_code_is_refused(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "copy")
    file = tmp_path / "copy" / "initial" / ".zarray"
    text = {"dtype": "|O", "fill_value": "", "compressor": None, "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]}
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | text), encoding="utf-8")
    with pytest.raises(st.StorageError, match="uses the codec 'pickle', but only blosc"):
        st.Ensemble.load(tmp_path / "copy")

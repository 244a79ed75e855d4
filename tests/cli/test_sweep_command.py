"""The command `sweep`: what it prints and writes, how it ends, and on which ports it listens."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from marks import slow
from matplotlib.image import imread

import shaped_transformer as st
from shaped_transformer.analysis import sweeps
from shaped_transformer.analysis.sweeps import scheduling

BASE: dict[str, Any] = {"width": 16, "samples": 64, "tokens": 3}
SPEC: dict[str, Any] = {"base": BASE, "grid": {"gamma": [0.2, 0.5], "depth": [2, 4]}}
LONG: dict[str, Any] = {
    "base": {"width": 16, "samples": 20_000, "tokens": 6, "depth": 400},
    "grid": {"seed": list(range(40))},
}


def write(spec: dict[str, Any], folder: Path = Path()) -> str:
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return str(folder / "spec.yaml")


def test_a_sweep_writes_a_report(run: Any, tmp_path: Path) -> None:
    code, out, _ = run("sweep", write(SPEC, tmp_path), "--out", "out", "--json")
    assert code == 0
    report = json.loads(out)
    assert report == json.loads((tmp_path / "out" / "run.json").read_text())
    assert (report["kind"], report["computed"], report["done"], report["failed"]) == ("sweep", 4, 0, [])
    assert report["specification"]["grid"] == SPEC["grid"]


def test_a_sweep_writes_a_picture(run: Any, tmp_path: Path) -> None:
    run("sweep", write(SPEC, tmp_path), "--out", "out")
    assert imread(tmp_path / "out" / "figure.png").std() > 0
    assert (tmp_path / "out" / "figure.svg").stat().st_size > 0


def test_a_sweep_prints_a_table_of_medians(run: Any, tmp_path: Path) -> None:
    _, out, _ = run("sweep", write(SPEC, tmp_path), "--out", "out")
    rank = sweeps.load(tmp_path / "out")["effective_rank"].sel(gamma=0.5, depth=4, quantile=0.5)
    row = next(line.split() for line in out.splitlines() if line.split()[:2] == ["0.5", "4"])
    assert row[3] == f"{float(rank):.3g}"


def test_a_repeated_sweep_computes_no_point_again(run: Any, tmp_path: Path) -> None:
    _, out, _ = run("sweep", write(SPEC, tmp_path), "--out", "out")
    assert "4 computed, 0 already done, 0 failed" in out
    code, out, _ = run("sweep", write(SPEC, tmp_path), "--out", "out")
    assert code == 0
    assert "0 computed, 4 already done, 0 failed" in out


def test_the_store_goes_to_a_folder_of_the_name_of_the_specification(run: Any, tmp_path: Path) -> None:
    code, _, err = run("sweep", write(SPEC, tmp_path))
    assert code == 0
    assert "Written to runs/sweeps/spec: " in err
    assert sweeps.load(tmp_path / "runs" / "sweeps" / "spec").sizes["gamma"] == 2


def test_a_failed_point_is_named_by_its_parameters(run: Any, tmp_path: Path) -> None:
    spec = {"base": BASE, "grid": {"gamma": [0.2, 1.7], "tau0": [1.0]}}
    code, out, err = run("sweep", write(spec, tmp_path), "--out", "out", "--json")
    assert code == 0
    assert "failed: gamma=1.7, tau0=1.0: DefinitionError: " in err
    report = json.loads(out)
    assert report["failed"][0]["point"] == {"gamma": 1.7, "tau0": 1.0}
    assert (report["computed"], report["done"]) == (1, 0)
    assert "0 computed, 1 already done, 1 failed" in run("sweep", "spec.yaml", "--out", "out")[1]


def test_the_exit_status_is_1_if_every_point_failed(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(scheduling, "draw_point", fail)
    code, out, _ = run("sweep", write(SPEC, tmp_path), "--out", "out")
    assert code == 1
    assert "0 computed, 0 already done, 4 failed" in out
    assert not (tmp_path / "out" / "figure.png").exists()
    monkeypatch.undo()
    os.chdir(tmp_path)
    assert sweeps.run(sweeps.from_dict(SPEC), tmp_path / "out").computed == 4


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"gama": 0.2}, "base has an unknown key 'gama'"),
        ({"heads": 7}, "no point of the sweep can be drawn. The first, gamma=0.2, depth=2: DefinitionError: "),
    ],
)
def test_an_error_in_base_is_one_line_and_writes_nothing(
    run: Any, tmp_path: Path, base: dict[str, Any], message: str
) -> None:
    code, out, err = run("sweep", write(SPEC | {"base": base}, tmp_path), "--out", "out")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_results_of_another_kind_are_not_replaced(run: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"kind": "predict"}')
    code, _, err = run("sweep", write(SPEC, tmp_path), "--out", "out")
    assert code == 2
    assert "contains results of 'predict'" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run.json"]


def test_functions_of_an_architecture_need_trust(run: Any, tmp_path: Path) -> None:
    (tmp_path / "bends.py").write_text("import numpy as np\n\n\ndef bend(x):\n    return np.tanh(x)\n")
    arch = st.shaped_mlp(8, 2, activation=st.ShapedSmooth(st.Smooth("numpy:tanh", 0.0, -2.0), 1.0)).to_dict()
    (tmp_path / "my.json").write_text(json.dumps(arch).replace("numpy:tanh", "bends:bend"))
    (tmp_path / "specs").mkdir()
    grid = {"architecture": ["../my.json"]}
    spec = write({"base": {"samples": 16, "tokens": 2}, "grid": grid}, tmp_path / "specs")
    code, _, err = run("sweep", spec, "--out", "out")
    assert code == 2
    assert "--trust" in err
    before = list(sys.path)
    try:
        assert run("sweep", spec, "--out", "out", "--trust")[0] == 0
    finally:
        sys.path[:] = before
        sys.modules.pop("bends", None)


@pytest.mark.parametrize("text", ["list: 3", "- 1", "grid: {architecture: 5}", "list: [3, {architecture: [1]}]"])
def test_a_wrong_specification_is_one_line_with_trust_too(run: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.yaml").write_text(text, encoding="utf-8")
    code, _, err = run("sweep", "spec.yaml", "--out", "out", "--trust")
    assert code == 2
    assert len(err.splitlines()) == 1


def test_the_table_is_not_cut_without_a_terminal(run: Any, tmp_path: Path) -> None:
    point = {"preset": "shaped_transformer", "gamma": 0.123456, "tau0": 1.2345, "heads": 2, "mask": "causal", "seed": 7}
    _, out, _ = run("sweep", write({"base": BASE, "list": [point]}, tmp_path), "--out", "out")
    row = next(line for line in out.splitlines() if "0.123456" in line)
    assert "…" not in row
    assert len(row.split()) == len(point) + len(sweeps.KEPT) + 1


def test_a_wrong_address_of_a_scheduler_is_an_error(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    code, _, err = run("sweep", write(SPEC, tmp_path), "--out", "out", "--scheduler", "nonsense")
    assert code == 2
    assert "such as tcp://host:8786 (got 'nonsense')" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("option", [["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], ["--dashboard"]])
def test_options_that_exclude_each_other_are_refused(run: Any, tmp_path: Path, option: list[str]) -> None:
    code, _, err = run("sweep", write(SPEC, tmp_path), "--out", "out", *option)
    assert code == 2
    assert "workers" in err
    assert not (tmp_path / "out").exists()


@contextmanager
def sweeping(folder: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """Yield the process of a long sweep after its second point; it is killed at the end."""
    command = [sys.executable, "-m", "shaped_transformer", "sweep", write(LONG, folder), "--out", str(folder / "out")]
    process = subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and process.poll() is None:
            if (folder / "out" / sweeps.STORE).exists() and (sweeps.Store(folder / "out").status() != 0).sum() >= 2:
                break
            time.sleep(0.1)
        assert process.poll() is None, process.communicate()[1]
        yield process
    finally:
        for pid in reversed(family(process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    out = [pid]
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1]) if entry.name.isdigit() else 0
        except (OSError, IndexError):
            continue
        if parent == pid:
            out += family(int(entry.name))
    return out


def listening(pids: list[int]) -> list[tuple[str, int]]:
    """Return the addresses on which processes listen, in the kernel's hexadecimal form, with the port."""
    sockets = set()
    for pid in pids:
        for handle in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(handle.readlink()))
            except OSError:
                continue
    out = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].partition(":")
                out.append((address, int(port, 16)))
    return out


linux = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux lists sockets in /proc")
LOOPBACK = "0100007F"


@linux
@pytest.mark.long
def test_a_sweep_in_one_process_listens_nowhere(tmp_path: Path) -> None:
    with sweeping(tmp_path) as process:
        assert len(family(process.pid)) == 1
        assert listening(family(process.pid)) == []


@linux
@pytest.mark.parametrize("dashboard", slow([False, True], long=[False]))
def test_worker_processes_listen_on_the_loopback_interface_only(dashboard: bool, tmp_path: Path) -> None:
    """They serve pages only with the dashboard, and communicate only with the credentials of the run."""
    pytest.importorskip("distributed")
    with sweeping(tmp_path, "--workers", "2", *(["--dashboard"] if dashboard else [])) as process:
        sockets = listening(family(process.pid))
        assert sockets
        assert {address for address, _ in sockets} == {LOOPBACK}
        assert any(serves(port, "/status") for _, port in sockets) == dashboard
        assert any(serves(port, "/health") for _, port in sockets) == dashboard
        assert not any(is_unencrypted(port) for _, port in sockets)


def is_unencrypted(port: int) -> bool:
    """Return whether the server at a port greets without encryption, as Dask does."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        try:
            return bool(connection.recv(1))
        except OSError:
            return False


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_cluster_without_encryption_is_noticed() -> None:
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as cluster:
        assert is_unencrypted(int(cluster.scheduler_address.rpartition(":")[2]))


def serves(port: int, page: str) -> bool:
    """Return whether a page is served at a port without encryption."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", page)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@pytest.mark.parametrize("options", slow(["", "--workers 2"], long=[""]))
def test_an_interrupt_ends_a_sweep_at_once_and_keeps_finished_points(options: str, tmp_path: Path) -> None:
    with sweeping(tmp_path, *options.split()) as process:
        finished = int((sweeps.Store(tmp_path / "out").status() == sweeps.DONE).sum())
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the workers too
        message = process.communicate(timeout=30)[1]
        assert process.returncode == 130
        assert time.monotonic() - start < 15
        assert "Traceback" not in message
        assert f"Finished points are kept in {tmp_path / 'out'}: the same command resumes" in message
    assert int((sweeps.Store(tmp_path / "out").status() == sweeps.DONE).sum()) >= finished >= 2


def test_the_cluster_is_closed_when_its_client_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    closed: list[str] = []

    class Cluster:
        def __init__(self, **options: Any) -> None:
            assert options["host"] == "127.0.0.1"

        def __enter__(self) -> "Cluster":
            return self

        def __exit__(self, *_: Any) -> None:
            closed.append("closed")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no client today")

    monkeypatch.setattr(distributed, "LocalCluster", Cluster)
    monkeypatch.setattr(distributed, "Client", fail)
    with pytest.raises(OSError, match="no client today"):
        sweeps.run(sweeps.from_dict(SPEC), tmp_path, workers=1)
    assert closed == ["closed"]
    assert not (tmp_path / sweeps.STORE).exists()

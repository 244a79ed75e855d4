"""What a terminal of 80 columns shows: whole numbers, no line that is too long, bars on standard error only."""

import json
import os
import pty
import re
import struct
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ

import pytest
import yaml

COLUMNS = 80
SMALL = ["--width", "16", "--depth", "6", "--samples", "200"]
COMMANDS = {
    "compare": ["compare", *SMALL, "--network-samples", "30"],
    "predict": ["predict", *SMALL, "--gamma", "0.01"],
    "advise": ["advise", *SMALL[:4], "--samples", "100", "--frontier"],
    "sweep": ["sweep", "spec.yaml"],
    "list": ["figure", "--list"],
    "probe": ["probe", "config.json", "--tokens", "8", "--expected", "3"],
    "rehearse": ["rehearse", "config.json", "--tokens", "8", "--steps", "9", "--warmup", "20", "--clip", "1"],
}
GPT2 = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 60, "n_positions": 32} | {
    "n_embd": 16,
    "n_layer": 12,
    "n_head": 2,
}
SENTENCES = (
    *("Verdict", "Advice", "For training", "tau0", "Expected", "Measured", "Probe of"),
    *("Rehearsal of", "Training: ", "Input: ", "Try: "),
)
"""Beginnings of lines that a terminal wraps."""


def on_terminal(arguments: list[str], folder: Path) -> str:
    """Return what a command prints on standard output, a terminal of 80 columns."""
    main, terminal = pty.openpty()
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "shaped_transformer", *arguments],
        cwd=folder,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env=environment | {"TERM": "xterm"},
    )
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:  # Linux reports the end of a terminal as an error
        pass
    os.close(main)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode("utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        "sweep",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("predict", "compare", "advise", "list", "probe", "rehearse")
        ),
    ],
)
def test_tables_fit_and_no_number_is_cut(name: str, tmp_path: Path) -> None:
    spec = {"base": {"width": 8, "depth": 2, "samples": 16, "tokens": 3}, "grid": {"gamma": [0.123456, 0.5]}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (tmp_path / "config.json").write_text(json.dumps(GPT2), encoding="utf-8")
    if name in ("probe", "rehearse"):
        pytest.importorskip("transformers")
    shown = on_terminal(COMMANDS[name], tmp_path)
    tables = [line for line in shown.splitlines() if not line.startswith(SENTENCES)]
    assert max(len(line.rstrip()) for line in tables) <= COLUMNS
    assert "…" not in shown


@pytest.mark.slow
def test_every_number_of_the_section_on_stability_is_shown_whole(tmp_path: Path) -> None:
    shown = on_terminal(COMMANDS["predict"], tmp_path)
    stability = json.loads((tmp_path / "runs" / "predict" / "run.json").read_text(encoding="utf-8"))["stability"]
    for effect in stability["effects"]:
        for key in ("healthy", "mean_absolute_correlation", "effective_rank"):
            assert f"{effect[key]['value']:+.2g} ± " in shown
    rank = stability["effective_rank"]
    assert f"{rank['value']:.3g} [{rank['low']:.3g}, {rank['high']:.3g}]" in shown

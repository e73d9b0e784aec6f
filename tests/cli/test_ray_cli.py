"""``fedbench run --executor ray`` on a cluster of three nodes on this machine, of which one is killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_suite import of_seeds

from fedbench.runs.results import scan

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_a_lost_node_loses_no_run(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    suite, results, alone = tmp_path / "tiny.toml", tmp_path / "results", tmp_path / "alone"
    suite.write_text(of_seeds(10))
    command = [sys.executable, "-m", "fedbench", "run", str(suite), "--results"]
    size = {"num_cpus": 1, "object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args=size)
    try:
        lost, _ = (cluster.add_node(**size) for _ in range(2))
        running = subprocess.Popen(
            [*command, str(results), "--executor", "ray", "--tasks", "3"],
            env={**os.environ, "RAY_ADDRESS": cluster.address}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 300
        while len(list(results.glob("*.parquet"))) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)
        out, _ = running.communicate(timeout=300)
    finally:
        cluster.shutdown()
    assert (running.returncode, out) == (0, f"done: 20 runs: 20 ok, 0 diverged, 0 failed. Records in {results}.\n")
    subprocess.run([*command, str(alone), "--jobs", "2"], check=True, capture_output=True)
    found, expected = (scan([folder]).table.select(["run_id", "curve"]).to_pylist() for folder in (results, alone))
    assert found == expected

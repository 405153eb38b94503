"""A Dask cluster of two processes on this machine as the executor: the bytes of the serial run (`make dask`)."""

import numpy as np
import pytest
from distributed import Client, LocalCluster
from helpers.tiny_checkpoint import write_tiny_llama

import awq_ref

OPTIONS = {
    "group_size": 16,
    "calibration": np.random.default_rng(5).integers(0, 250, (8, 32)),
    "shown": False,
}
# Dask's own sockets, closed late.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def contents(folder):
    return {
        path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"
    }  # has its name


@pytest.mark.parametrize("recipe", ["awq", "awq+gptq"])
def test_the_bytes_are_those_of_the_serial_run(client, tmp_path, recipe):
    source = tmp_path / "source"
    write_tiny_llama(source, num_hidden_layers=5)
    serial = awq_ref.quantize_model(source, tmp_path / "serial", recipe=recipe, **OPTIONS)
    spread = awq_ref.quantize_model(
        source, tmp_path / "dask", recipe=recipe, executor=client.get_executor(), ahead=3, **OPTIONS
    )
    assert contents(tmp_path / "serial") == contents(tmp_path / "dask")
    assert spread.peak_bytes > serial.peak_bytes  # the workers' is counted: they did the work

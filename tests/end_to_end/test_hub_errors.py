"""A model by its name on the hub, and every way in which that may fail: one message, exit code 2, nothing half-done."""

import shutil

import pytest
from helpers.command_line import assert_nothing_written, assert_refused, quantize_arguments, run
from helpers.hub_server import NAME, HubServer, hub_at, snapshot


def inspect(capsys, name: str = NAME):
    return run(capsys, "inspect", name)


def sooner_or_later(capsys) -> bool:
    """Run up to three times: some versions of the library try again by themselves, others leave it to the user."""
    return any(inspect(capsys)[0] == 0 for _ in range(3))


@pytest.mark.parametrize(
    "name",
    [
        "./org/tiny",
        "/org/tiny",
        "a/b/c",
        "org/tiny@",
        "org/tiny@../x",
        "org--tiny",
        "tiny.git",
        "org/t y",
    ],
)
def test_neither_a_path_nor_a_possible_name(capsys, hub, name):
    assert_refused(inspect(capsys, name), "no such folder", "cannot be a name on the Hugging Face hub")
    assert not hub.requests


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "", ("HTTP 401", "HF_TOKEN", "spelling")),
        (401, "GatedRepo", ("gated", "licence", "HF_TOKEN")),
        (403, "GatedRepo", ("gated", "licence", "HF_TOKEN")),
        (403, "", ("HTTP 403", "licence", "HF_TOKEN")),
        (404, "RepoNotFound", ("HTTP 404", "neither such a folder here nor such a model there")),
        (429, "", ("HTTP 429", "Wait")),
        (500, "", ("HTTP 500", "Try again later")),
        (503, "", ("HTTP 503", "Try again later")),
    ],
)
@pytest.mark.parametrize("kind", ["info", "file"])
def test_an_answer_that_refuses(capsys, hub, home, kind, status, code, words):
    hub.fail(kind, status, code=code)
    result = inspect(capsys)
    assert_refused(result, NAME, *words)
    assert result[1].startswith(
        f"awq-ref: {NAME}: must be a model on the Hugging Face hub that can be read; "
    )
    assert not list(home.rglob("*.incomplete"))


def test_an_output_that_exists_is_said_before_anything_is_downloaded(capsys, hub, tmp_path, text):
    (tmp_path / "out").mkdir()
    assert_refused(run(capsys, *quantize_arguments(NAME, tmp_path / "out", text)), "exists already")
    assert not hub.requests


def test_a_server_that_fails_twice_and_then_answers(capsys, hub):
    hub.fail("file", 500, file="config.json", times=2)
    assert sooner_or_later(capsys)


def test_what_is_in_the_cache_serves_while_the_server_fails(capsys, hub):
    assert inspect(capsys)[0] == 0
    hub.fail("info", 500)
    assert inspect(capsys)[0] == 0


def test_a_name_that_nobody_has(capsys, hub):
    assert_refused(
        inspect(capsys, "org/tyny"), "org/tyny", "neither such a folder here nor such a model there"
    )


def test_a_gated_model_with_and_without_the_token(capsys, hub, monkeypatch):
    hub.token = "hf_right"
    assert_refused(inspect(capsys), "gated", "licence", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert_refused(inspect(capsys), "gated", "licence", "HF_TOKEN")
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert inspect(capsys)[0] == 0
    assert not any(request.token for request in hub.asked("storage"))  # it is another host


def test_a_model_without_safetensors(capsys, hub, tmp_path, published):
    shutil.copytree(published, tmp_path / "pickled", ignore=shutil.ignore_patterns("*.safetensors"))
    hub.put(NAME, tmp_path / "pickled")
    assert_refused(inspect(capsys), NAME, "*.safetensors", "model.gguf", "Pickles", "save_pretrained")
    assert not hub.asked("storage")


def test_a_model_that_is_gguf_alone(capsys, hub, tmp_path, published):
    kept = shutil.ignore_patterns("*.safetensors", "*.bin", "*.pt", "*.pth", "*.ckpt")
    shutil.copytree(published, tmp_path / "gguf", ignore=kept)
    hub.put(NAME, tmp_path / "gguf")
    assert_refused(inspect(capsys), NAME, "model.gguf", "from which these were made", "llama.cpp")


def test_a_connection_cut_in_the_middle_is_resumed_where_it_broke(capsys, hub, home, published, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(
        constants, "DOWNLOAD_CHUNK_SIZE", 1000
    )  # what is not a whole piece is asked for again
    hub.cut("model.safetensors", 5000, 3500)
    assert sooner_or_later(capsys)
    assert [request.range for request in hub.asked("storage")] == ["", "bytes=5000-", "bytes=8000-"]
    weights = (snapshot(home) / "model.safetensors").read_bytes()
    assert weights == (published / "model.safetensors").read_bytes()


def test_a_connection_that_stays_cut_and_a_second_run(capsys, hub, home, sharded, tmp_path, text):
    hub.put(NAME, sharded)
    first, second, third = sorted(file.name for file in sharded.glob("*.safetensors"))
    hub.cut(second, 500, *[0] * 20)
    result = run(capsys, *quantize_arguments(NAME, tmp_path / "out", text))
    assert_refused(result, NAME, "the download broke off", "Run it again")
    assert_nothing_written(tmp_path / "out")
    assert not (snapshot(home) / second).exists()
    whole = {path.name for path in snapshot(home).iterdir()}
    hub.cuts.clear()
    hub.requests.clear()
    assert run(capsys, *quantize_arguments(NAME, tmp_path / "out", text))[0] == 0
    asked = {request.file for request in hub.asked("storage") + hub.asked("file")}
    assert second in asked
    assert not asked & whole
    for file in (first, second, third):
        assert (snapshot(home) / file).read_bytes() == (sharded / file).read_bytes()


def test_without_the_network(capsys, hub, home, monkeypatch):
    with HubServer() as gone:
        pass  # nobody listens at its port any more
    with hub_at(monkeypatch, gone, home):
        assert_refused(inspect(capsys), NAME, "cannot be reached", "cache", "HF_ENDPOINT")
    with hub_at(monkeypatch, hub, home):
        assert inspect(capsys)[0] == 0
    with hub_at(monkeypatch, gone, home):
        assert inspect(capsys)[0] == 0


def test_offline_mode(capsys, hub, home, monkeypatch):
    with hub_at(monkeypatch, hub, home, HF_HUB_OFFLINE="1"):
        assert_refused(inspect(capsys), NAME, "HF_HUB_OFFLINE", "cache")
    with hub_at(monkeypatch, hub, home):
        assert inspect(capsys)[0] == 0
    hub.requests.clear()
    with hub_at(monkeypatch, hub, home, HF_HUB_OFFLINE="1"):
        assert inspect(capsys)[0] == 0
        (snapshot(home) / "model.safetensors").unlink()
        assert_refused(inspect(capsys), NAME, "HF_HUB_OFFLINE", "cache")
    assert not hub.requests


def test_a_cache_that_holds_only_the_configuration(capsys, hub, home, monkeypatch):
    assert run(capsys, "paper", "memory", "--model", NAME, "--group-size", 16)[0] == 0
    with HubServer() as gone:
        pass
    with hub_at(monkeypatch, gone, home):
        assert_refused(inspect(capsys), NAME, "cannot be reached", "cache does not hold all of it")
    with hub_at(monkeypatch, hub, home):
        assert inspect(capsys)[0] == 0


def test_an_answer_that_is_not_the_hubs(capsys, hub):
    hub.fail("info", 200)  # and nothing in it
    assert_refused(inspect(capsys), NAME, "the download broke off")

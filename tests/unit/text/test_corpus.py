"""The corpus: a file's part depends on its path alone; tests and generated tables stay out."""

import pytest

from awq_ref.errors import CorpusError
from awq_ref.text import corpus


@pytest.mark.parametrize(
    ("path", "split"),
    [
        # sha256sum of the path begins with 3b2e3cb3 = 992885939, 9e6612bb = 2657489595, b4fa779c = 3036313500;
        # modulo 100 that is 39, 95, 0. Up to 86 is train, up to 92 calibration, the rest validation.
        ("json/decoder.py", "train"),
        ("socket.py", "validation"),
        ("ast.py", "train"),
        # With sha256 computed by other means: 89 and 87.
        ("sched.py", "calibration"),
        ("tokenize.py", "calibration"),
    ],
)
def test_split_is_the_hash_of_the_path(path, split):
    assert corpus.split_of(path) == split


def test_the_parts_are_disjoint_and_leave_out_tests():
    parts = [set(corpus.stdlib_files(split)) for split in ("train", "calibration", "validation")]
    assert all(parts)
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    for path in set.union(*parts):
        folders = set(path.relative_to(corpus.stdlib_root()).parts[:-1])
        assert not folders & {"test", "tests", "idle_test", "site-packages", "encodings", "__pycache__"}


def test_tests_come_along_when_asked_for(tmp_path, monkeypatch):
    (tmp_path / "test").mkdir()
    (tmp_path / "ast.py").write_text("plain")
    (tmp_path / "test" / "test_ast.py").write_text("tested")
    monkeypatch.setattr(corpus, "stdlib_root", lambda: tmp_path)
    names = {path.name for s in corpus.SPLIT_PERCENT for path in _files(s, with_tests=True)}
    assert names == {"ast.py", "test_ast.py"}
    assert list(corpus.stdlib_texts("train")) == ["plain"]


def _files(split, *, with_tests):
    try:
        return corpus.stdlib_files(split, with_tests=with_tests)
    except CorpusError:  # no file of this part
        return []


def test_an_installation_without_source_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "stdlib_root", lambda: tmp_path)
    with pytest.raises(CorpusError, match=r"found no calibration file there\. Give your own text"):
        corpus.stdlib_files("calibration")

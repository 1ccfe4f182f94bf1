"""Where pretrained files are looked for; wrong ones are noticed; downloads are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import http.server
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from _runtime import UserError
from lightning_modules import weights
from lightning_modules.weights import FOLDER_VARIABLE, WEIGHTS, Weights, fetch, find, noted, read, state

CONTENT = b"pretrained " * 300_000  # some chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def chosen(monkeypatch, tmp_path) -> Path:
    """The folder of FACE_SUITE_WEIGHTS; torch's cache is beside it, and neither exists."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "chosen"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "chosen"


@pytest.fixture
def enter(monkeypatch, chosen):
    """-> function(url, sha256): puts `test/net` into the table."""

    def enter(url: str | None = None, sha256: str | None = SHA256[:8]) -> None:
        entry = Weights("a network", "net.pth", sha256, "MIT", "https://example.org/page", url)
        monkeypatch.setitem(WEIGHTS, "test/net", entry)

    return enter


def put(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.pth").write_bytes(content)
    return folder / "net.pth"


def one_line(error: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_table() -> None:
    files = [entry.file for entry in WEIGHTS.values()]
    assert len(set(files)) == len(files)
    for name, entry in WEIGHTS.items():
        assert re.fullmatch(r"[a-z0-9]+/[a-z0-9.-]+", name)
        assert entry.page.startswith("https://")
        if entry.url is not None:
            assert entry.url.startswith("https://")
            assert entry.url.endswith(f"/{entry.file}")
        if entry.sha256 is not None:
            assert re.fullmatch(r"[0-9a-f]{8,64}", entry.sha256)
            # torch's convention: a file's name ends in the beginning of its hash; others have all of it
            assert entry.file.endswith(f"-{entry.sha256}.pth") or len(entry.sha256) == 64, name
    assert {"lpips/alex", "lpips/vgg", "fid/inception"} <= WEIGHTS.keys()


def test_the_chosen_folder_comes_before_torchs_cache(enter, chosen, monkeypatch) -> None:
    enter()
    cache = chosen.parent / "hub" / "checkpoints"
    in_cache = put(cache)
    assert find("test/net") == in_cache
    in_chosen = put(chosen)
    assert find("test/net") == in_chosen
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert find("test/net") == in_cache
    assert weights.folders() == [cache]


def test_missing_names_file_page_folder_and_command(enter, chosen) -> None:
    enter(url="https://example.org/net.pth")
    with pytest.raises(UserError) as error:
        find("test/net")
    command = "python -m experiments.weights fetch test/net"
    one_line(error, "net.pth", "https://example.org/page", str(chosen), command)
    enter(url=None)
    with pytest.raises(UserError) as error:
        find("test/net")
    one_line(error, "net.pth", "https://example.org/page", str(chosen))
    assert "fetch" not in str(error.value)


def test_the_hash_is_checked_every_time(enter, chosen) -> None:
    enter()
    path = put(chosen)
    assert find("test/net") == path
    put(chosen, b"something else")
    with pytest.raises(UserError) as error:
        find("test/net")
    wrong = hashlib.sha256(b"something else").hexdigest()[:8]
    one_line(error, str(path), wrong, SHA256[:8], "https://example.org/page")
    # the right file further down does not hide a wrong one
    put(chosen.parent / "hub" / "checkpoints")
    with pytest.raises(UserError, match="has sha256"):
        find("test/net")


def test_a_file_without_published_hash_is_taken_as_it_is(enter, chosen) -> None:
    enter(sha256=None)
    path = put(chosen, b"anything")
    assert find("test/net") == path
    assert state("test/net") == "found, unchecked"


def test_states(enter, chosen) -> None:
    enter()
    assert state("test/net") == "missing"
    put(chosen)
    assert state("test/net") == "found"
    put(chosen, CONTENT[:-1])
    assert state("test/net") == "wrong hash"


def test_what_is_found_is_noted_once(enter, chosen) -> None:
    enter()
    put(chosen)
    with noted() as outer:
        find("test/net")
        with noted() as inner:
            find("test/net")
    find("test/net")
    assert outer == inner == ["net.pth"]
    with noted() as later:
        pass
    assert later == []


def test_unknown_name() -> None:
    for ask in (find, fetch, state):
        with pytest.raises(UserError, match="unknown weights 'lpips/alxe': did you mean 'lpips/alex'?"):
            ask("lpips/alxe")


def test_finding_never_touches_the_network(enter, monkeypatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("asked the network"))
    enter(url="https://example.org/net.pth")
    with pytest.raises(UserError):
        find("test/net")
    assert state("test/net") == "missing"


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def test_read_gives_tensors_and_executes_nothing(enter, chosen, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    enter(sha256=None)
    chosen.mkdir()
    torch.save({"a": torch.arange(3)}, chosen / "net.pth")
    assert torch.equal(read("test/net")["a"], torch.arange(3))
    torch.save({"a": Malicious()}, chosen / "net.pth")
    with pytest.raises(UserError) as error:
        read("test/net")
    one_line(error, str(chosen / "net.pth"))
    assert not Path("executed").exists()
    put(chosen, b"\x80truncated")
    with pytest.raises(UserError, match="cannot be read as tensors"):
        read("test/net")
    put(chosen, b"<html>Quota exceeded</html>")
    with pytest.raises(UserError, match="net.pth is a web page"):
        read("test/net")
    torch.save({"a": [1.0]}, chosen / "net.pth")
    with pytest.raises(UserError, match="is damaged: it has an entry 'a' that is of type list"):
        read("test/net")


SERVED = {  # path -> what is announced, what comes
    "/net.pth": (CONTENT, CONTENT),
    "/other": (b"another file", b"another file"),
    "/cut": (CONTENT, CONTENT[:100_000]),
    "/stalls": (CONTENT, b""),
}


class Server(http.server.ThreadingHTTPServer):
    """Does not mind that a client asks for the size alone, and hangs up."""

    def handle_error(self, request: object, address: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """A web server on this machine; -> its address."""
    finished = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in SERVED:
                self.send_error(404)
                return
            announced, body = SERVED[self.path]
            self.send_response(200)
            self.send_header("Content-Length", str(len(announced)))
            self.end_headers()
            self.wfile.write(body)
            if self.path == "/stalls":
                finished.wait(20)

        def log_message(self, *args: object) -> None:
            pass

    running = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}"
    finished.set()
    running.shutdown()
    running.server_close()
    thread.join()


def test_fetch_writes_the_whole_file_to_the_first_folder(enter, chosen, server) -> None:
    enter(url=f"{server}/net.pth")
    assert fetch("test/net") == chosen / "net.pth" == find("test/net")
    assert (chosen / "net.pth").read_bytes() == CONTENT
    assert [path.name for path in chosen.iterdir()] == ["net.pth"]


def test_fetch_from_a_file_address(enter, chosen, tmp_path) -> None:
    enter(url=put(tmp_path / "elsewhere").as_uri())
    assert fetch("test/net").read_bytes() == CONTENT


def test_fetch_leaves_what_is_there(enter, chosen, server, monkeypatch) -> None:
    enter(url=f"{server}/net.pth")
    cache = put(chosen.parent / "hub" / "checkpoints")
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **kwargs: pytest.fail("asked the network"))
    assert fetch("test/net") == cache
    cache.write_bytes(b"something else")
    with pytest.raises(UserError, match="has sha256"):
        fetch("test/net")
    assert cache.read_bytes() == b"something else"


OTHER_SHA256 = hashlib.sha256(b"another file").hexdigest()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/other", f"has sha256 {OTHER_SHA256[:8]}, expected {SHA256[:8]}"),
        ("/cut", f"the connection ended after 100000 of {len(CONTENT)} bytes"),
        ("/stalls", "timed out"),
        ("/nowhere", "Not Found"),
    ],
)
def test_a_failed_download_leaves_nothing(
    enter, chosen, server, monkeypatch, path: str, message: str
) -> None:
    monkeypatch.setattr(weights, "TIMEOUT", 0.3)
    unpublished = path == "/cut"
    enter(url=server + path, sha256=None if unpublished else SHA256[:8])
    with pytest.raises(UserError) as error:
        fetch("test/net")
    one_line(error, server + path, message)
    assert not list(chosen.iterdir())


def test_a_full_disk_leaves_nothing(enter, chosen, server, monkeypatch) -> None:
    def full(self, target):
        raise OSError(errno.ENOSPC, "No space left on device")

    enter(url=f"{server}/net.pth")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        fetch("test/net")
    assert not list(chosen.iterdir())


def test_offline(enter, chosen) -> None:
    enter(url="http://127.0.0.1:9/net.pth")  # the discard port: nobody listens
    with pytest.raises(UserError) as error:
        fetch("test/net")
    one_line(error, "could not be fetched", "refused")
    one_line(error, "put net.pth", "https://example.org/page", str(chosen))


def test_no_direct_link(enter, chosen) -> None:
    enter(url=None)
    with pytest.raises(UserError) as error:
        fetch("test/net")
    one_line(error, "no direct link", "put net.pth", "https://example.org/page", str(chosen))


def test_a_folder_that_cannot_be_made(enter, chosen, server) -> None:
    enter(url=f"{server}/net.pth")
    chosen.write_text("a file where the folder should be")
    with pytest.raises(UserError) as error:
        fetch("test/net")
    one_line(error, f"{chosen} cannot be created")


def test_an_interrupted_download_leaves_nothing(enter, chosen, server, monkeypatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    enter(url=f"{server}/net.pth")
    monkeypatch.setattr(torch.hub.tqdm, "update", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("test/net")
    assert not list(chosen.iterdir())

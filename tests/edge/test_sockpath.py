"""Claims about sockpath.py: how a path is taken in a folder that strangers share."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from punchd.edge.sockpath import inherited, listen
from punchd.words.errors import HostError

STRANGER = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play a stranger")


@contextmanager
def shared_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder like /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder


def refusal(path: Path) -> str:
    with pytest.raises(HostError) as caught:
        listen(str(path))
    assert "host-refused" == caught.value.code
    return caught.value.message


def leave_stale(path: Path) -> None:
    """What a killed daemon leaves: its socket, its lock, and nobody behind them."""
    program = (
        "import os, sys; from punchd.edge.sockpath import listen;"
        "l = listen(sys.argv[1]); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert path.exists()


def test_the_socket_has_its_mode_and_works(tmp_path: Path) -> None:
    """0660 keeps strangers out before SO_PEERCRED is asked."""
    with shared_folder(tmp_path) as folder:
        listener = listen(str(folder / "s"), mode=0o660)
        assert 0o660 == stat.S_IMODE((folder / "s").lstat().st_mode)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listener.path)
        listener.close()
        assert [] == os.listdir(folder)


@as_root
def test_owner_and_group_are_given_to_the_file_alone(tmp_path: Path) -> None:
    """Under sudo the calling user must be able to connect."""
    with shared_folder(tmp_path) as folder:
        listener = listen(str(folder / "s"), owner=STRANGER, group=STRANGER)
        found = (folder / "s").lstat()
        assert (STRANGER, STRANGER) == (found.st_uid, found.st_gid)
        assert 0 == (folder / "s.lock").lstat().st_uid
        listener.close()


def test_a_second_daemon_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    """Two daemons at one path would each get half of the callers."""
    first = listen(str(tmp_path / "s"))
    assert "another punchd holds it" in refusal(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(first.path)
    first.close()


def test_a_stale_socket_of_ours_is_replaced(tmp_path: Path) -> None:
    """After kill -9 the daemon must start again without a hand."""
    leave_stale(tmp_path / "s")
    listener = listen(str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.path)
    listener.close()
    assert [] == os.listdir(tmp_path)


def test_a_socket_that_is_served_without_our_lock_is_left_alone(tmp_path: Path) -> None:
    """Somebody else's server is not ours to remove, even when it runs as the same user."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen(1)
        assert "still serves" in refusal(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))


@as_root
def test_a_strangers_socket_is_never_removed(tmp_path: Path) -> None:
    """Not even a dead one: it is not ours."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
    os.chown(tmp_path / "s", STRANGER, STRANGER)
    assert f"belongs to uid {STRANGER}" in refusal(tmp_path / "s")
    assert (tmp_path / "s").exists()


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_a_link_at_the_path_is_not_followed(tmp_path: Path, target: str) -> None:
    """Else a stranger could have root create, or unlink, any file."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "s").symlink_to(tmp_path / target)
    assert "no socket" in refusal(tmp_path / "s")
    assert "precious" == (tmp_path / "victim").read_text()
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("target", ["victim", "nothing"])
def test_a_link_at_the_lock_is_not_followed(tmp_path: Path, target: str) -> None:
    """The same trick one name further."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "s.lock").symlink_to(tmp_path / target)
    assert "it is a link" in refusal(tmp_path / "s")
    assert "precious" == (tmp_path / "victim").read_text()
    assert not (tmp_path / "nothing").exists()


def test_a_fifo_at_the_lock_does_not_hold_us(tmp_path: Path) -> None:
    """Opening a FIFO without a reader would wait for ever."""
    os.mkfifo(tmp_path / "s.lock")
    done = threading.Thread(target=refusal, args=(tmp_path / "s",), daemon=True)
    done.start()
    done.join(2)
    assert not done.is_alive()


@as_root
def test_a_strangers_lock_is_refused(tmp_path: Path) -> None:
    """Its owner could take our lock away."""
    (tmp_path / "s.lock").write_text("")
    os.chown(tmp_path / "s.lock", STRANGER, STRANGER)
    assert f"uid {STRANGER} put it there" in refusal(tmp_path / "s")


def test_a_file_at_the_path_is_left_alone(tmp_path: Path) -> None:
    """A typing error in --socket must not cost a file."""
    (tmp_path / "s").write_text("precious")
    assert "no socket" in refusal(tmp_path / "s")
    assert "precious" == (tmp_path / "s").read_text()


def test_a_folder_where_strangers_can_rename_is_refused(tmp_path: Path) -> None:
    """Without the sticky bit anybody could put another socket in our place."""
    tmp_path.chmod(0o777)
    assert "others can rename" in refusal(tmp_path / "s")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing /run/punchd is the commonest mistake."""
    assert str(tmp_path / "no") in refusal(tmp_path / "no" / "s")


def test_a_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    """The kernel's own words for it help nobody."""
    assert "107 bytes" in refusal(tmp_path / ("s" * 120))


def test_close_leaves_a_path_that_is_no_longer_ours(tmp_path: Path) -> None:
    """Somebody removed our socket and serves there now."""
    listener = listen(str(tmp_path / "s"))
    os.unlink(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        listener.close()
        assert ["s"] == os.listdir(tmp_path)


def test_a_socket_by_activation_is_used_and_its_path_left(tmp_path: Path) -> None:
    """The service manager made the path and keeps it."""
    program = """
import os, socket, sys
from punchd.edge.sockpath import inherited
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
listener = inherited(environ, os.getpid())
assert environ == {} and not os.get_inheritable(3)
listener.socket.accept()
listener.close()
"""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen(1)
        client.connect(path)
        third = os.dup(3) if _is_open(3) else None
        os.dup2(server.fileno(), 3)
        try:
            subprocess.run([sys.executable, "-c", program], pass_fds=[3], check=True)
        finally:
            os.dup2(third, 3) if third is not None else os.close(3)
            if third is not None:
                os.close(third)
    assert ["s"] == os.listdir(tmp_path)


def _is_open(fd: int) -> bool:
    return os.path.exists(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_FDS": "1"}])
def test_variables_meant_for_another_process_are_ignored(environ: dict[str, str]) -> None:
    """A child must not take its parent's socket for its own."""
    assert inherited(environ, os.getpid()) is None

"""Reading JSON and arrays from files that may be missing, cut off, or something else."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ilqljax.data import files
from ilqljax.data.files import (
    check_checksum,
    check_writable,
    check_writable_folder,
    lock_path,
    read_arrays,
    read_json,
    replace_half_characters,
    save_arrays,
    save_folder,
    save_text,
    save_with_checksum,
)
from ilqljax.errors import UserError

ADVICE = "Copy it again."


def test_json_with_and_without_a_byte_order_mark(tmp_path):
    for prefix in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.json").write_bytes(prefix + '{"a": "é"}'.encode())
        assert read_json(tmp_path / "a.json", advice=ADVICE) == {"a": "é"}
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json", advice=ADVICE, kind=list) == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a.json is missing."),
        (b"", "a.json:1: not JSON at column 1 (Expecting value)."),
        (b'{"a":\n1', "a.json:2: not JSON"),
        (b'{"a": "\xff"}', "a.json:1: byte 7 is not UTF-8."),
        (b'{"a":\n"\xff"}', "a.json:2: byte 7 is not UTF-8."),
        (b'{"a": [{"b": 1, "b": 1}]}', "the name 'b' is twice in one object"),
        (b"\0" * 20, "a.json:1: not JSON"),
        (b"[1]", "a.json:1: expected a JSON object, got list."),
        (b"[" * 200_000, "a.json:1: not JSON that we can read (maximum recursion depth"),
    ],
)
def test_json_that_cannot_be_read_says_where_and_what_to_do(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        read_json(tmp_path / "a.json", advice=ADVICE)
    assert str(raised.value).endswith(ADVICE)


def test_a_folder_is_no_file(tmp_path):
    for read in (read_json, read_arrays):
        with pytest.raises(UserError, match=r"cannot be read.*Copy it again\."):
            read(tmp_path, advice=ADVICE)


def test_arrays_come_back(tmp_path):
    save_file({"w": np.arange(6, dtype=np.float32)}, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(read_arrays(tmp_path / "w.safetensors", advice=ADVICE)["w"], np.arange(6))


def test_every_flipped_bit_of_saved_arrays_is_found_or_changes_none(tmp_path):
    path, rng = tmp_path / "w.safetensors", np.random.default_rng(0)
    arrays = {"w": np.arange(20, dtype=np.float32), "b": np.float32(3.0), "i": np.arange(3, dtype=np.int16)[::-1]}
    save_arrays(path, arrays, metadata={"format": "pt"})
    written, found = path.read_bytes(), 0
    for at in rng.choice(len(written) * 8, size=300, replace=False):
        flipped = bytearray(written)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            read = read_arrays(path, advice=ADVICE)
        except UserError as error:
            found += 1
            assert "w.safetensors" in str(error) and str(error).endswith(ADVICE)
        else:
            assert read.keys() == arrays.keys()
            assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    assert found > 150
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_an_array_that_a_disk_changed_is_named(tmp_path):
    path = tmp_path / "w.safetensors"
    save_arrays(path, {"w": np.arange(100, dtype=np.float32)})
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"w\.safetensors: its arrays are not those that were written.*Copy it again\."):
        read_arrays(path, advice=ADVICE)


def test_arrays_that_cannot_be_written_leave_nothing(tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        save_arrays(tmp_path / "nowhere" / "w.safetensors", {"w": np.zeros(2, np.float32)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_what_is_written_is_as_readable_as_any_other_file(tmp_path, mask):
    (tmp_path / "arrays").write_text("an older one")
    (tmp_path / "arrays").chmod(0o600)
    before = os.umask(mask)
    try:
        save_arrays(tmp_path / "arrays", {"w": np.zeros(2, np.float32)})
        save_with_checksum(tmp_path / "text", "")
        save_folder(tmp_path / "folder", {"text": ""})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == dict.fromkeys(("arrays", "text", "text.sha256"), 0o666 & ~mask)
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("kept", [None, 0, 5, 40, -1])
def test_arrays_of_a_cut_off_file_are_refused(tmp_path, kept):
    path = tmp_path / "w.safetensors"
    save_file({"w": np.arange(100, dtype=np.float32)}, path)
    if kept is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"w\.safetensors.*(missing|not a complete).*Copy it again\."):
        read_arrays(path, advice=ADVICE)


def test_a_model_whose_files_are_cut_off_is_refused(tmp_path):
    from ilqljax.models.io.hf import load_language_model

    sizes = {"vocab_size": 8, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    (tmp_path / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(UserError, match=r"model\.safetensors: is not a complete safetensors file.*Save the model"):
        load_language_model(str(tmp_path))


def test_a_lock_is_one_process_at_a_time_and_ends_with_its_block(tmp_path):
    for path in (tmp_path / "file.lock", tmp_path):
        with lock_path(path) as first, lock_path(path) as second:
            assert (first, second) == ("held", "taken")
        with lock_path(path) as again:
            assert again == "held"


def test_a_killed_process_leaves_no_lock(tmp_path):
    program = f"""
import os, signal
from ilqljax.data.files import lock_path
with lock_path({str(tmp_path / "a.lock")!r}) as lock:
    print(lock, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (killed.stdout, killed.returncode) == ("held\n", -signal.SIGKILL)
    with lock_path(tmp_path / "a.lock") as lock:
        assert lock == "held"


class Msvcrt:
    """Windows' locks, as Python has them there, of this system's own."""

    LK_UNLCK, LK_NBLCK = 0, 2

    def locking(self, descriptor, mode, n):
        assert (os.lseek(descriptor, 0, os.SEEK_CUR), n) == (files.LOCKED_BYTE, 1)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_UN if mode == self.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PermissionError(errno.EACCES, "Permission denied") from error


def test_a_lock_of_windows_is_one_process_at_a_time_and_leaves_a_folder_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "msvcrt", Msvcrt())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (tmp_path / "file.lock", folder):
        with lock_path(path) as first, lock_path(path) as second:
            assert (first, second) == ("held", "taken")
        with lock_path(path, wait=True) as again:
            assert again == "held"
    assert not list(folder.iterdir())


def test_a_lock_of_windows_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "msvcrt", Msvcrt())
    with contextlib.ExitStack() as held:
        held.enter_context(lock_path(tmp_path / "a.lock"))
        monkeypatch.setattr(files.time, "sleep", lambda _: held.close())
        with lock_path(tmp_path / "a.lock", wait=True) as lock:
            assert lock == "held"


def test_on_windows_no_folder_is_opened_and_files_are_synced_by_one_who_may_write(tmp_path, monkeypatch):
    really_open, synced = os.open, []

    def open_as_windows(path, mode, *rest):
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        assert mode & os.O_RDWR
        synced.append(Path(path).name)
        return really_open(path, mode, *rest)

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    monkeypatch.setattr(files, "ON_WINDOWS", True)
    monkeypatch.setattr(files.os, "open", open_as_windows)
    files.make_folder(tmp_path / "c")
    files.sync_tree(tmp_path)
    assert synced == ["b"]


def test_a_system_or_file_system_without_locks_says_so(tmp_path, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with lock_path(tmp_path / "a.lock") as lock:
        assert lock == "unsupported"
    monkeypatch.setattr(files, "fcntl", None)
    with lock_path(tmp_path / "a.lock") as lock:
        assert lock == "unsupported"


def test_a_changed_or_cut_text_is_refused_until_its_checksum_is_deleted(tmp_path):
    path = tmp_path / "a.json"
    save_with_checksum(path, "1\n2 é\n")
    check_checksum(path)
    written = path.read_bytes()
    for i in range(8 * len(written)):
        flipped = bytearray(written)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match=r"damaged or was changed.*delete .*a\.json\.sha256"):
            check_checksum(path)
    path.write_bytes(written[:2])
    with pytest.raises(UserError, match="damaged or was changed"):
        check_checksum(path)
    (tmp_path / "a.json.sha256").unlink()
    check_checksum(path)  # as files of before there were checksums


def test_a_text_that_is_written_again_has_a_checksum_of_its_own_which_sha256sum_reads(tmp_path):
    for text in ("old", "new"):
        save_with_checksum(tmp_path / "a.txt", text)
        check_checksum(tmp_path / "a.txt")
    digest = hashlib.sha256(b"new").hexdigest()
    assert (tmp_path / "a.txt.sha256").read_text() == f"{digest}  a.txt\n"


def test_a_write_that_was_cut_off_leaves_no_wrong_checksum(tmp_path, monkeypatch):
    save_with_checksum(tmp_path / "a.txt", "old")
    monkeypatch.setattr(files, "hash_file", None)  # fails after the text was written
    with pytest.raises(TypeError):
        save_with_checksum(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    check_checksum(tmp_path / "a.txt")


def test_a_file_is_synced_before_its_name_and_the_folder_after_it(tmp_path, monkeypatch):
    events, replace = [], os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: events.append(os.readlink(f"/proc/self/fd/{fd}")))

    def note(old, new):
        events.append("move")
        replace(old, new)

    monkeypatch.setattr(files.os, "replace", note)
    temporary, folder = f"{tmp_path}/.a.{os.getpid()}.tmp", str(tmp_path)
    files.save_text(tmp_path / "a", "x")
    assert events == [temporary, "move", folder]
    events.clear()
    save_folder(tmp_path / "b", {"c": "x"})
    temporary = temporary.replace(".a.", ".b.")
    assert events == [f"{temporary}/c", temporary, "move", folder]
    events.clear()
    files.save_files(tmp_path, lambda made: [(made / name).touch() for name in "de"])
    temporary = f"{tmp_path}/.{os.getpid()}.tmp"
    assert sorted(events[:2]) == [f"{temporary}/d", f"{temporary}/e"]
    assert events[2:] == [temporary, "move", "move", folder]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_only_a_file_system_that_cannot_sync_folders_is_excused(tmp_path, monkeypatch, number):
    def refuse(descriptor):
        raise OSError(number, "no")

    monkeypatch.setattr(files.os, "fsync", refuse)
    if number == errno.EINVAL:
        files.save_text(tmp_path / "a", "x")
        assert (tmp_path / "a").read_text() == "x"
    else:
        with pytest.raises(UserError, match="cannot be written"):
            files.save_text(tmp_path / "a", "x")
        assert list(tmp_path.iterdir()) == []


def test_what_killed_writes_left_is_removed_and_nothing_else(tmp_path):
    kept = ["a", ".b.tmp", "c.1.tmp", ".hidden.1.tmp.d"]
    for name in [*kept, ".a.123.tmp", "folder/.deep.json.7.tmp"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder" / ".77.tmp" / "deep").mkdir(parents=True)
    files.remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted([*kept, "folder"])


def test_a_full_disk_is_told_from_a_folder_that_may_not_be_written(tmp_path, monkeypatch):
    for number, advice in ((errno.ENOSPC, "Free some space"), (errno.EDQUOT, "Free some space"), (errno.EIO, "Choose")):

        def fail(_, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files, "sync_tree", fail)
        for write in (lambda: files.save_text(tmp_path / "a", ""), lambda: files.save_files(tmp_path, lambda _: None)):
            with pytest.raises(UserError, match=rf"cannot be written \({os.strerror(number)}\)\. {advice}"):
                write()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_nothing(tmp_path):
    def write(temporary):
        temporary.touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.save_whole(tmp_path / "a", write)
    assert list(tmp_path.iterdir()) == []


def test_half_characters_are_replaced_and_whole_ones_kept():
    assert replace_half_characters({"\ud83d": ["\ude00a", "\U0001f600é"]}) == {"\ufffd": ["\ufffda", "\U0001f600é"]}


def test_where_a_file_may_be_written_is_known_beforehand(tmp_path):
    (tmp_path / "old").write_text("kept")
    for name in ("new", "old"):
        check_writable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old"] and (tmp_path / "old").read_text() == "kept"
    for name in ("", "nowhere/new", "old/new"):
        with pytest.raises(UserError, match="cannot be written"):
            check_writable(tmp_path / name)


def test_where_a_folder_may_be_filled_is_known_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("", "new", "new/deep"):
        check_writable_folder(tmp_path / name)
    assert not (tmp_path / "new").exists()
    for name in ("file", "file/new", "link"):
        with pytest.raises(UserError, match=f"{name}: cannot be written"):
            check_writable_folder(tmp_path / name)
    monkeypatch.setattr(files.os, "access", lambda changed, mode: str(changed) != str(tmp_path))
    for name in ("", "new/deep"):
        with pytest.raises(UserError, match="cannot be written"):
            check_writable_folder(tmp_path / name)


@pytest.mark.parametrize(("locked", "append"), [("old", True), ("folder", False)])
def test_appending_changes_the_file_and_replacing_it_the_folder(tmp_path, monkeypatch, locked, append):
    (tmp_path / "old").write_text("kept")
    path = str(tmp_path / "old" if locked == "old" else tmp_path)
    monkeypatch.setattr(files.os, "access", lambda changed, mode: str(changed) != path)  # root may write anywhere
    check_writable(tmp_path / "old", append=not append)
    with pytest.raises(UserError, match="cannot be written"):
        check_writable(tmp_path / "old", append=append)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_devices_and_streams_are_not_replaced_by_files(tmp_path):
    pipe, stream = tmp_path / "pipe", tmp_path / "stdout"
    os.mkfifo(pipe)
    stream.symlink_to("/proc/self/fd/1")
    for path in (pipe, stream):
        with pytest.raises(UserError, match=r"is a device or a pipe, and a file would take its place"):
            save_text(path, "text")
        with pytest.raises(UserError, match=r"is a device or a pipe"):
            check_writable(path)
        check_writable(path, append=True)
    assert pipe.is_fifo() and stream.is_symlink() and len(list(tmp_path.iterdir())) == 2

"""Reading JSON and arrays from files that may be missing, cut off, or something else."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from ilqljax.errors import UserError
from ilqljax.files import read_arrays, read_json, save_arrays

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
        (b"", "a.json:1: not JSON (Expecting value)."),
        (b'{"a":\n1', "a.json:2: not JSON"),
        (b'{"a": "\xff"}', "a.json: not JSON (byte 7 is not UTF-8)."),
        (b"\0" * 20, "a.json:1: not JSON"),
        (b"[1]", "a.json:1: a JSON object was expected, got list."),
        (b"[" * 200_000, "a.json: not JSON that we can read (nested too deeply)."),
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
    from ilqljax.models.hf_weights import load_gpt2

    sizes = {"vocab_size": 8, "n_positions": 8, "n_embd": 4, "n_layer": 1, "n_head": 1}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    (tmp_path / "model.safetensors").write_bytes(b"\x08")
    with pytest.raises(UserError, match=r"model\.safetensors: is not a complete safetensors file.*Save the model"):
        load_gpt2(str(tmp_path))

from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from package_files import DEMO_MODEL, ROOT

from litevlm_ros import checksums
from litevlm_ros.checksums import (
    Checksum,
    accept,
    changed_files,
    check_part,
    check_weights,
    listed,
    rewriting,
    unchanged,
    unchanged_graph,
)
from litevlm_ros.convert.model_description import copy_description
from litevlm_ros.errors import CheckpointError
from litevlm_ros.mending import mend_advice
from litevlm_ros.model_config import ModelConfig
from litevlm_ros.model_directory import CHECKSUMS, TEXT
from litevlm_ros.text.tokenizer import TextTokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO_MODEL, tmp_path / "model"))


def damage(file: Path) -> None:
    contents = bytearray(file.read_bytes())
    contents[len(contents) // 2] ^= 1
    file.write_bytes(contents)


def test_the_list_of_the_demo_model_is_right_and_whole() -> None:
    assert changed_files(DEMO_MODEL) == {}
    tracked = subprocess.run(
        ["git", "ls-files", "models/demo"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not tracked:
        pytest.skip("this is no git checkout")
    names = {Path(file).relative_to("models/demo").as_posix() for file in tracked} - {CHECKSUMS}
    assert names <= listed(DEMO_MODEL).keys()


def test_a_description_that_has_changed_is_refused(model: Path) -> None:
    ModelConfig.from_directory(model)
    for name in ("config.json", "tokenizer.json"):
        file = model / TEXT / name
        whole = file.read_bytes()
        file.write_bytes(whole.replace(b"a", b"b", 1))
        with pytest.raises(CheckpointError, match=rf"{name} has changed since it was made: its SHA-256 is another one"):
            (ModelConfig if name == "config.json" else TextTokenizer).from_directory(model)
        file.write_bytes(whole)


def test_a_description_that_is_gone_is_refused(model: Path) -> None:
    """Without generation_config.json, other tokens end an answer."""
    (model / TEXT / "generation_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"generation_config\.json has changed since it was made: it is missing"):
        TextTokenizer.from_directory(model)


def test_a_change_on_purpose_is_accepted_by_the_command_that_the_error_names(model: Path) -> None:
    from litevlm_ros.tools.check_model import main

    file = model / TEXT / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": ""}))
    with pytest.raises(CheckpointError) as caught:
        check_part(model, TEXT)
    command = re.search(r"accept it as it is with `ros2 run litevlm_ros check_model ([^`]+)`", str(caught.value))
    assert command
    assert main(command[1].split()[:2]) == 1
    assert main(command[1].split()) == 0
    assert main(command[1].split()[:2]) == 0
    check_part(model, TEXT)
    assert changed_files(model) == {}


def test_a_graph_is_compared_with_all_that_it_reads(model: Path) -> None:
    for name in ("text_decoder.onnx", "text_decoder/model.safetensors"):
        damage(model / name)
        with pytest.raises(CheckpointError, match=re.escape(name)), unchanged_graph(model / "text_decoder.onnx"):
            pytest.fail("it was read")
        with unchanged_graph(model / "vision_encoder.onnx"):
            pass
        shutil.copy(DEMO_MODEL / name, model / name)
    (model / "text_decoder.onnx").write_bytes(b"text_decoder.onnx.data")
    (model / "text_decoder.onnx.data").write_bytes(b"weights")
    accept(model)
    damage(model / "text_decoder.onnx.data")
    with pytest.raises(CheckpointError, match=r"onnx\.data"), unchanged_graph(model / "text_decoder.onnx"):
        pass


def test_weights_are_compared(model: Path) -> None:
    check_weights(model / TEXT)
    damage(model / TEXT / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.safetensors has changed"):
        check_weights(model / TEXT)


def test_large_files_are_compared_while_they_are_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksums, "_READ_FIRST", 10)
    file = model / "view_selector.onnx"
    damage(file)
    read = threading.Event()
    with pytest.raises(CheckpointError, match="has changed"), unchanged(file):
        read.set()
    assert read.is_set()
    with pytest.raises(CheckpointError, match="has changed") as caught, unchanged(file):
        raise ValueError("what a reader of damaged bytes says")
    assert isinstance(caught.value.__cause__, ValueError)
    with pytest.raises(ValueError, match="another reason"), unchanged(model / "token_scorer.onnx"):
        raise ValueError("another reason")


def test_a_disk_that_cannot_read_a_file_is_explained(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checksums, "hash_file", fail)
    with pytest.raises(CheckpointError, match=r"config\.json has changed .*: it cannot be read \(Input/output error\)"):
        ModelConfig.from_directory(model)


def test_a_directory_without_a_list_is_read_as_it_is(model: Path) -> None:
    (model / CHECKSUMS).unlink()
    damage(model / "text_decoder.onnx")
    (model / TEXT / "generation_config.json").unlink()
    check_part(model, TEXT)
    with unchanged_graph(model / "text_decoder.onnx"):
        pass


@pytest.mark.parametrize(
    "contents",
    ["", "[]", "{}", '{"format": 2, "files": {}}', '{"format": 1, "files": {"a": {"bytes": "1"}}}', "[" * 9999],
)
def test_a_damaged_list_names_itself_and_the_command(model: Path, contents: str) -> None:
    (model / CHECKSUMS).write_text(contents)
    with pytest.raises(
        CheckpointError, match=r"checksums\.json cannot be used .*`ros2 run litevlm_ros check_model --mod"
    ):
        ModelConfig.from_directory(model)
    accept(model)
    ModelConfig.from_directory(model)


def test_a_file_that_is_replaced_is_listed_anew(model: Path) -> None:
    before = listed(model)
    with rewriting(model, TEXT, "token_scorer.onnx", "new.onnx"):
        assert not any(name.startswith(TEXT + "/") for name in listed(model)), "a tool that is killed leaves no entry"
        (model / TEXT / "config.json").write_text("{}")
        (model / TEXT / "generation_config.json").unlink()
        (model / "token_scorer.onnx").unlink()
        (model / "new.onnx").write_bytes(b"graph")
    after = listed(model)
    assert after["new.onnx"] == Checksum.of(model / "new.onnx")
    assert after[f"{TEXT}/config.json"].bytes == 2
    assert before.keys() - after.keys() == {f"{TEXT}/generation_config.json", "token_scorer.onnx"}
    assert changed_files(model) == {}


def test_a_replacement_that_fails_leaves_the_list_as_it_was(model: Path) -> None:
    before = listed(model)
    with pytest.raises(OSError, match="full"), rewriting(model, TEXT):
        raise OSError("the disk is full")
    assert listed(model) == before


def test_two_tools_at_once_lose_no_entry(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for each in range(10):
            with rewriting(tmp_path, f"{number}.{each}.onnx"):
                (tmp_path / f"{number}.{each}.onnx").write_bytes(bytes(each))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listed(tmp_path)) == 40
    assert changed_files(tmp_path) == {}


def test_copies_are_listed_and_none_is_made_of_a_damaged_file(model: Path, tmp_path: Path) -> None:
    copy_description(model, tmp_path / "copy")
    assert f"{TEXT}/tokenizer.json" in listed(tmp_path / "copy")
    assert changed_files(tmp_path / "copy") == {}
    damage(model / TEXT / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has changed"):
        copy_description(model, tmp_path / "other")


def test_every_file_has_its_remedy(tmp_path: Path) -> None:
    (tmp_path / TEXT).mkdir()
    (tmp_path / TEXT / "origin.json").write_text('{"model": "a/b", "revision": "main", "licence": ""}')
    for name, command in (
        (
            "text_decoder/config.json",
            f"download_models --model a/b --revision main --output {tmp_path} --skip-vision --f",
        ),
        ("vision_encoder/config.json", "Copy it again from where it came from"),
        ("text_decoder.onnx", f"export_onnx --model {tmp_path} --skip-vision --text-precision fp32`"),
        ("vision_encoder_int8.onnx.data", f"export_onnx --model {tmp_path} --skip-text --vision-precision int8`"),
        ("text_decoder_fp8_exact.onnx", "--skip-vision --text-precision fp8 --exact`"),
        ("draft_head.onnx", f"export_onnx --model {tmp_path} --skip-vision`"),
        ("draft_head/model.safetensors", f"train_draft_head --model {tmp_path}`"),
        ("token_scorer.onnx", f"train_token_scorer --model {tmp_path}`"),
        ("view_selector.onnx", f"train_view_selector --output {tmp_path}/view_selector.onnx`"),
        ("other.onnx", "Copy it again"),
    ):
        assert command in mend_advice(tmp_path, name)
    assert "git checkout" in mend_advice(DEMO_MODEL, "text_decoder.onnx")

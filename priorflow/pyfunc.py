"""A published version as MLflow's Python function: a table of texts in, a table of answers out.

Loaded by the `model.py` of a version's folder. Texts are answered one by one, as everywhere, so an answer
has the same bits in any table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any, final

import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from posterior.family import ONE_TASK
from priorflow.flavour import OUTPUTS
from priorflow.published import open_published
from stream.prediction_id import prediction_id
from trainers.abstention import Abstention
from trainers.answer import Answer, Answerer

_META = "registered_model_meta"  # MLflow writes it where it downloads a registered version
_KINDS = {"double": "float64", "boolean": "bool", "string": "object", "map": "object"}


@final
class Posterior(PythonModel):
    """One snapshot that answers; loads safetensors and JSON, verified against their shas."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the version's folder; CannotOpen if it is not as published, or its encoder is not here."""
        folder = Path(context.artifacts["answering"]).parent
        self._held = open_published(folder, (context.model_config or {}).get("encoder") or "")
        self._version = _version(folder)
        self._one_at_a_time = Lock()  # MLflow's server asks from several threads

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Answer each row's `text`; `id` names its event, `task` its group, where there are any.

        `params` may ask for another `risk` (1: withhold nothing) and its `alpha`.
        """
        del context
        answerer, rule = self._answerer(), self._rule(params or {})
        asked = _columns(model_input)
        with self._one_at_a_time:
            rows = [self._row(answerer, rule, *one) for one in asked]
        return _table(rows, model_input.index)

    def _answerer(self) -> Answerer:
        if self._held.answerer is None:
            msg = f"snapshot {self._held.snapshot.sha} knows no class to answer with"
            raise _refused(msg)
        return self._held.answerer

    def _rule(self, params: Mapping[str, Any]) -> Abstention | None:
        said = self._held.answering
        try:
            return said.rule(params.get("risk", said.risk), params.get("alpha", said.alpha))
        except ValueError as wrong:
            raise _refused(str(wrong)) from wrong

    def _row(
        self, answerer: Answerer, rule: Abstention | None, text: str, name: str | None, task: str | None
    ) -> dict[str, Any]:
        return _told(answerer.answer(text, task or ONE_TASK), rule) | {
            "snapshot": self._held.snapshot.sha,
            "version": self._version,
            "prediction_id": None if name is None else prediction_id(name, self._held.snapshot.sha),
        }


def _told(answer: Answer, rule: Abstention | None) -> dict[str, Any]:
    low, high = answer.interval
    return {
        "label": answer.label,
        "probability": answer.confidence,
        "probabilities": dict(answer.probabilities),
        "novelty": answer.novelty,
        "low": low,
        "high": high,
        "total": answer.total,
        "aleatoric": answer.aleatoric,
        "epistemic": answer.epistemic,
        "abstain": rule is not None and rule.abstains(answer.confidence),
    }


def _columns(table: pd.DataFrame) -> list[tuple[str, str | None, str | None]]:
    """Return (text, id, task) of each row; what is missing or empty is None, but a text must be there."""
    texts, names, tasks = (
        list(table[name]) if name in table else [None] * len(table) for name in ("text", "id", "task")
    )
    for at, text in enumerate(texts):
        if not isinstance(text, str):
            msg = f"row {at} has no text: column 'text' holds {text!r} there"
            raise _refused(msg)
    return [(text, _said(name), _said(task)) for text, name, task in zip(texts, names, tasks, strict=True)]


def _said(value: object) -> str | None:
    return value if isinstance(value, str) and value else None  # pandas writes NaN for what is missing


def _table(rows: list[dict[str, Any]], index: Any) -> pd.DataFrame:
    columns = {
        name: pd.Series([row[name] for row in rows], index=index, dtype=_KINDS[kind])
        for name, kind in OUTPUTS.items()
    }
    return pd.DataFrame(columns)


def _version(folder: Path) -> str | None:
    """Return the version's number, which MLflow leaves beside what it downloads; None if it did not."""
    meta = folder / _META
    said = yaml.safe_load(meta.read_text(encoding="utf-8")) if meta.is_file() else {}
    number = said.get("model_version")
    return None if number is None else str(number)


def _refused(why: str) -> MlflowException:
    refused: MlflowException = MlflowException.invalid_parameter_value(why)  # untyped; its server answers 400
    return refused

"""Bugs in the panel beside the class rows: who is heard, what was seen, what is foretold of it."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_PANEL = "tests/posterior/test_panel.py::"
_POOL = "tests/posterior/test_pool.py::"
_ORDERS = "tests/trainers/test_panelled.py::"
_HEARD = _ORDERS + "test_pools_hear_what_the_parent_said_of_the_window"
_NOVEL = _PANEL + "test_what_no_class_explains_is_likelier_new"

PANELS: Final[tuple[Mutant, ...]] = (
    *bugs(
        "pool",
        "posterior/pool.py",
        (
            "the weights of before count for nothing",
            "new = (share + worth * weights) / (told.shape[1] + worth)",
            "new = share / told.shape[1]",
            _POOL + "test_weights_stay_a_distribution_and_gain",
        ),
        (
            "experts' own weights are left out of who explains an event",
            "torch.softmax(told + new.log().unsqueeze(1), dim=0)",
            "torch.softmax(told, dim=0)",
            _PANEL + "test_those_who_foretold_are_heard",
        ),
    ),
    *bugs(
        "panel",
        "posterior/panel.py",
        (
            "yesterday's moments are left behind",
            "moments.combine(_moments(panel), moments.moments(features, labels))",
            "moments.moments(features, labels)",
            _PANEL + "test_windows_in_any_order_are_one_evidence",
        ),
        (
            "a window's moments count twice",
            "moments.combine(_moments(panel), moments.moments(features, labels))",
            "moments.combine(*2 * [moments.combine(_moments(panel), moments.moments(features, labels))])",
            _PANEL + "test_windows_in_any_order_are_one_evidence",
        ),
        (
            "a temperature makes rows surer",
            "rows.double() / t for t in ROWS",
            "rows.double() * t for t in ROWS",
            _PANEL + "test_a_temperature_makes_rows_more_modest",
        ),
        (
            "known classes do not make room for a new one",
            "new[:, :1] + known, new[:, 1:]",
            "known, new[:, 1:]",
            _PANEL + "test_a_forecast_is_a_distribution",
        ),
        (
            "those who saw no new class coming are heard where one came",
            "(~old).long()",
            "old.long()",
            _PANEL + "test_new_classes_are_expected_where_they_came",
        ),
        ("the odds are upside down", "stack([-odds, odds]", "stack([odds, -odds]", _NOVEL),
        (
            "what known classes explain is called new",
            "+ seen.fresh * t - rival",
            "- seen.fresh * t + rival",
            _NOVEL,
        ),
        (
            "the window's features enter what is heard",
            "belief, old = believed(panel), truth != UNSEEN",
            "belief, old = believed(learned(panel, features, truth.abs(), classes=1)), truth != UNSEEN",
            _PANEL + "test_those_who_foretold_are_heard",
        ),
    ),
    *bugs(
        "panelled",
        "trainers/panelled.py",
        (
            "nobody is heard",
            "state = self._heard(state, features, members, tasks, draws, before)",
            "pass",
            _HEARD,
        ),
        ("one truth for all", "known.get(members[i][1]", "known.get(members[0][1]", _HEARD),
    ),
    *bugs(
        "frozen features",
        "trainers/sites.py",
        (
            "a prefix is put before attention where none was drawn",
            "            if not draw:\n                return args, kwargs\n",
            "",
            _ORDERS + "test_frozen_features_are_a_text_s_own",
        ),
    ),
)

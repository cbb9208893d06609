"""Bugs in what classes are called: two that become one, in what is said of them, learned and handed on."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_FOLDING = "tests/posterior/test_folding.py::"
_PANEL = "tests/posterior/test_panel.py::"
_MERGING = "tests/trainers/test_merging.py::"
_NAMES = "tests/trainers/test_relabelling.py::"
_BACK = "tests/trainers/test_relearning.py::"
_ASKED = "tests/app/test_labels.py::"
_JUDGED = "tests/app/test_promotion.py::"

CLASSES: Final[tuple[Mutant, ...]] = (
    *bugs(
        "folding",
        "posterior/folding.py",
        (
            "a merged class has what its likeliest row has",
            "torch.logsumexp(log_p, dim=-1)",
            "log_p.amax(dim=-1)",
            _FOLDING + "test_a_class_has_what_its_rows_have_and_every_other_its_bits",
        ),
        (
            "a class is known by its last row",
            "tuple(map(labels.index, labels))",
            "tuple({label: row for row, label in enumerate(labels)}[label] for label in labels)",
            _FOLDING + "test_a_class_is_known_by_its_first_row",
        ),
    ),
    *bugs(
        "merged: panel",
        "posterior/panel.py",
        (
            "experts are heard for one row of a merged class",
            "return folded(torch.log_softmax(said, dim=-1), seen.own)",
            "return torch.log_softmax(said, dim=-1)[..., sorted(set(seen.own))]",
            _PANEL + "test_experts_are_heard_for_what_they_gave_to_a_merged_class",
        ),
        (
            "a text counts in the row that it is least like",
            "density.masked_fill(~theirs, -torch.inf).argmax(dim=1)",
            "density.masked_fill(~theirs, torch.inf).argmin(dim=1)",
            _PANEL + "test_what_is_learned_of_a_merged_class_counts_in_the_row_that_it_resembles",
        ),
        (
            "a text counts in a row of any class",
            "density.masked_fill(~theirs, -torch.inf)",
            "density",
            _PANEL + "test_what_is_learned_of_a_merged_class_counts_in_the_row_that_it_resembles",
        ),
    ),
    *bugs(
        "merged: rows",
        "trainers/likelihood.py",
        (
            "a merged class learns in its first row alone",
            "folded(self.model.logits([self.texts[i] for i in positions], draw), self.labels)",
            "self.model.logits([self.texts[i] for i in positions], draw)",
            "tests/trainers/test_likelihood.py::test_a_class_of_two_rows_is_as_likely_as_both_together",
        ),
    ),
    *bugs(
        "merged: answer",
        "trainers/answer.py",
        (
            "rows of a merged class are answered one by one",
            "folded(said, self._rows) + old",
            "said + old",
            _MERGING + "test_it_is_answered_as_it_is_foretold_and_doubt_adds_up",
        ),
    ),
    *bugs(
        "merged: stream",
        "stream/relabelling.py",
        (
            "of two forecasts of one class the last stays",
            "forecast[name] + p if name in forecast else p",
            "p",
            _NAMES + "test_what_was_foretold_of_both_adds_up",
        ),
    ),
    *bugs(
        "merged: map",
        "stream/plan.py",
        (
            "the second row of a class is lost",
            "return (*known, *(",
            "return (*dict.fromkeys(known), *(",
            _NAMES + "test_the_row_of_a_merger_keeps_tensors_rows_and_positions_and_says_of_whom",
        ),
    ),
    *bugs(
        "merged: line",
        "trainers/line.py",
        (
            "a derived chain does not know the names it began with",
            "        if row.seq == 0:\n",
            "        if row.seq < 0:\n",
            _ASKED + "test_what_is_derived_again_bears_the_new_name_from_its_start",
        ),
        (
            "going back makes classes one that nobody merged",
            "            return None\n        now =",
            "            pass\n        now =",
            _BACK + "test_a_champion_whose_classes_are_not_those_of_the_head_is_refused_in_words",
        ),
        (
            "of two merged classes one is called otherwise",
            "return tuple(report[MERGED]) if",
            "return tuple(report[MERGED][:1]) if",
            _NAMES + "test_the_row_of_a_merger_keeps_tensors_rows_and_positions_and_says_of_whom",
        ),
    ),
    *bugs(
        "merged: door",
        "connectors/admission.py",
        (
            "a row merges other classes than it says",
            "len(wanted) == 1 if one is None else wanted == set(one)",
            "len(wanted) == 1 or one is not None",
            _NAMES + "test_a_row_that_merges_what_it_does_not_say_is_refused",
        ),
        (
            "a row that goes back merges unsaid",
            " or made_one(past.labels, labels) != snapshot.report.get(MERGED, [])",
            "",
            _BACK + "test_a_row_that_goes_back_and_merges_what_nobody_merged_is_refused",
        ),
    ),
    *bugs(
        "names: asked",
        "priorflow/asking.py",
        (
            "an older snapshot is asked under its own names",
            "now = [self.names.of(label) for label in columns]",
            "now = list(columns)",
            _ASKED + "test_an_older_snapshot_is_asked_for_both_classes_that_are_one_today",
        ),
    ),
    *bugs(
        "names: judged",
        "priorflow/promotion.py",
        (
            "what was missed under a former name is never made good",
            "without(case.showing, self.asker.names.present)",
            "without(case.showing, ())",
            _JUDGED + "test_what_was_missed_of_a_class_under_a_former_name_bars_nobody",
        ),
        (
            "a window that is heard late is judged under the names it was learned under",
            "        members = self.asker.today(members)\n",
            "",
            _JUDGED + "test_what_was_missed_of_a_class_under_a_former_name_bars_nobody",
        ),
    ),
)

"""Bugs in the panel beside the class rows: who is heard, what was seen, what is foretold of it."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_PANEL = "tests/posterior/test_panel.py::"
_DIVIDED = "tests/posterior/test_regression.py::"
_ODDS = "tests/posterior/test_novelty.py::"
_POOL = "tests/posterior/test_pool.py::"
_PIECES = "tests/posterior/test_dictionary.py::"
_ORDERS = "tests/trainers/test_panelled.py::"
_LANGUAGE = "tests/trainers/test_language.py::"
_LACKS = _PANEL + "test_what_a_window_lacks_"
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
        "novelty",
        "posterior/novelty.py",
        ("the odds are upside down", "stack([-log_odds, log_odds]", "stack([log_odds, -log_odds]", _NOVEL),
        ("what known classes explain is called new", "+ fresh * t - rival", "- fresh * t + rival", _NOVEL),
        (
            "a strange text is proof of a new class",
            "log_odds.clamp(-MOST, 0.0)",
            "log_odds.clamp(-MOST, MOST)",
            _ODDS + "test_densities_multiply_the_odds_up_to_even",
        ),
        (
            "the rate does not learn",
            "(RARE[0] + new) / (RARE[1] + judged)",
            "RARE[0] / RARE[1]",
            _ODDS + "test_the_rate_is_the_mean_of_a_beta_posterior",
        ),
    ),
    *bugs(
        "panel",
        "posterior/panel.py",
        (
            "those that divide keep their say of classes that a window lacks",
            "* LEFT**missing, panel",
            "* 1.0, panel",
            _LACKS + "costs_those_that_divide_of_their_say",
        ),
        (
            "a window's new classes are lacked",
            "own[row] not in held",
            "own[row] in held",
            _LACKS + "costs_those_that_divide_of_their_say",
        ),
        (
            "a merged class is lacked, where another row of it was learned",
            "held, own = set(truth.tolist()), first_rows(labels) or range(len(count))",
            "held, own = set(truth.tolist()), range(len(count))",
            _PANEL + "test_a_window_that_lacks_nothing_leaves_all_their_say",
        ),
        (
            "the rate counts classes that were known",
            'novelty.counted(panel.pool["rate"], ~old)',
            'novelty.counted(panel.pool["rate"], old)',
            _PANEL + "test_new_classes_are_expected_where_they_came",
        ),
        (
            "yesterday's moments are left behind",
            "moments.combine(before, moments.moments(flat, labels))",
            "moments.moments(flat, labels)",
            _PANEL + "test_windows_in_any_order_are_one_evidence",
        ),
        (
            "a window's moments count twice",
            "    after = moments.grow(after,",
            "    after = moments.grow(moments.combine(after, after),",
            _PANEL + "test_windows_in_any_order_are_one_evidence",
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
        (
            "the window's features enter what is heard",
            "believed(panel, labels) if ready is None else ready",
            "believed(learned(panel, sight, truth.abs(), classes=1))",
            _PANEL + "test_those_who_foretold_are_heard",
        ),
        (
            "classes are offered of which nobody has seen an event",
            'panel.generative["count"].nonzero()',
            'torch.ones_like(panel.generative["count"]).nonzero()',
            _PANEL + "test_a_class_without_an_example_is_not_known",
        ),
        (
            "pieces are left out of a product",
            "e.views, e.pieces, e.narrow",
            "e.views, 0.0, e.narrow",
            _PANEL + "test_a_head_alone_is_bayes_rule_of_its_densities",
        ),
        (
            "views are left out of a product",
            "e.views, e.pieces, e.narrow",
            "0.0, e.pieces, e.narrow",
            _PANEL + "test_a_head_alone_is_bayes_rule_of_its_densities",
        ),
        (
            "yesterday's pieces are left behind",
            'dictionary.counted(panel.words["counts"], sight',
            "dictionary.counted(dictionary.nothing(sight.vocabulary), sight",
            _PANEL + "test_windows_in_any_order_are_one_evidence",
        ),
        (
            "what was heard counts for ever",
            "of_known, worth=WORTH",
            "of_known, worth=2e4",
            _PANEL + "test_what_was_heard_before_the_last_window_counts_for_little",
        ),
        (
            "a window is in the prior that it is learned under",
            "_last(before, features.shape[1])",
            "_last(after, features.shape[1])",
            _PANEL + "test_the_head_that_divides_learns_in_turn_and_answers_as_by_itself",
        ),
        (
            "softmax regression forgets the windows before",
            "regression.grow(Regression(**panel.regression), len",
            "regression.grow(regression.nothing(features.shape[1]), len",
            _PANEL + "test_the_head_that_divides_learns_in_turn_and_answers_as_by_itself",
        ),
    ),
    *bugs(
        "sight",
        "posterior/sight.py",
        (
            "the first view is taken for the last",
            "evidence.mean[:, -width:]",
            "evidence.mean[:, :width]",
            _PANEL + "test_the_last_view_alone_is_a_head_on_that_view",
        ),
        (
            "a class of few texts is looked for where the base has it",
            "amid(evidence, centre.flatten())",
            "centre.flatten()",
            _PANEL + "test_a_class_of_one_text_is_looked_for_where_the_known_ones_lie",
        ),
        (
            "rows without evidence are classes too",
            "seen = evidence.count > 0",
            "seen = evidence.count > -1",
            _PANEL + "test_a_class_without_an_example_is_not_known",
        ),
    ),
    *bugs(
        "experts",
        "posterior/experts.py",
        (
            "a temperature makes rows surer",
            "Expert(rows=1 / t) for t in",
            "Expert(rows=t) for t in",
            _PANEL + "test_a_temperature_makes_rows_more_modest",
        ),
    ),
    *bugs(
        "regression",
        "posterior/regression.py",
        (
            "the window's mode is sought from 0, not from the mean before",
            "turned @ (before.mean[j] @ before.basis).T",
            "turned @ (0 * before.mean[j] @ before.basis).T",
            _DIVIDED + "test_each_window_ends_at_the_mode_under_the_prior_before_it",
        ),
        (
            "the prior holds nothing",
            "return 0.5 * step.square().sum() - (truth",
            "return -(truth",
            _DIVIDED + "test_each_window_ends_at_the_mode_under_the_prior_before_it",
        ),
        (
            "curvature is the last window's alone",
            "before.curvature + curvature)",
            "0 * before.curvature + curvature)",
            _DIVIDED + "test_curvature_adds_up_window_by_window",
        ),
        (
            "curvature of a softmax without what its classes share",
            "torch.diag_embed(p.sum(dim=1)) - p.mT @ p",
            "torch.diag_embed(p.sum(dim=1))",
            _DIVIDED + "test_curvature_of_one_event_is_the_likelihoods",
        ),
        (
            "doubt counts what all logits share",
            "belief.turn - belief.turn.mean(dim=1, keepdim=True)",
            "belief.turn",
            _DIVIDED + "test_doubt_is_the_inverse_of_the_precision_apart_from_what_logits_share",
        ),
        (
            "features that no text has shown are as certain as any",
            "base + belief.alpha.unsqueeze(2) * belief.sigma",
            "base + belief.alpha.unsqueeze(2) * belief.sigma.mean()",
            _DIVIDED + "test_doubt_is_the_inverse_of_the_precision_apart_from_what_logits_share",
        ),
    ),
    *bugs(
        "dictionary",
        "posterior/dictionary.py",
        (
            "a text of many pieces is as likely as of few",
            "torch.lgamma(belief.size + drawn)",
            "torch.lgamma(belief.size)",
            _PIECES + "test_an_urn_drawn_from_piece_after_piece",
        ),
        (
            "the urn does not grow",
            "torch.lgamma(belief.size) - torch.lgamma(belief.size + drawn)",
            "-drawn * belief.size.log()",
            _PIECES + "test_an_urn_drawn_from_piece_after_piece",
        ),
        (
            "every class is told of every piece",
            "after[row, shown] += 1",
            "after[:, shown] += 1",
            _PIECES + "test_a_class_is_told_by_its_pieces_and_its_row_is_nobody_else_s",
        ),
        (
            "a class without evidence holds every piece for as likely",
            "SHARED * shared(counts)",
            "SHARED / counts.shape[1]",
            _PIECES + "test_a_word_that_is_common_everywhere_is_no_evidence_against_a_class_of_one_text",
        ),
        (
            "what all share is what the last class has",
            "counts.sum(dim=0, dtype=torch.float64)",
            "counts[-1].double()",
            _PIECES + "test_an_urn_drawn_from_piece_after_piece",
        ),
        (
            "a window's pieces are those of its last text",
            "after[row, shown] += 1",
            "after[row, shown] = 1",
            _PIECES + "test_windows_in_any_order_are_one_evidence_bit_for_bit",
        ),
    ),
    *bugs(
        "panelled",
        "trainers/panelled.py",
        (
            "nobody is doubted after a window",
            "state = panel.doubted(state, truth, labels)",
            "pass",
            _ORDERS + "test_a_window_of_new_classes_alone_leaves_those_that_divide_half_their_say",
        ),
        (
            "nobody is heard",
            "state = self._heard(state, sight, members, tasks, draws, before)",
            "pass",
            _HEARD,
        ),
        ("one truth for all", "known.get(members[i][1]", "known.get(members[0][1]", _HEARD),
    ),
    *bugs(
        "views",
        "trainers/model.py",
        (
            "the last view is as long as the class rows of an answer want it",
            "self._unit(self._pooled(*self.hidden([activation], {})))[0]",
            "self.features([activation], {})[0]",
            _LANGUAGE + "test_views_have_the_length_that_a_panel_supposes",
        ),
    ),
    *bugs(
        "frozen features",
        "trainers/sites.py",
        (
            "a prefix is put before attention where none was drawn",
            "            if not draw:\n                return args, kwargs\n",
            "",
            _ORDERS + "test_what_is_seen_of_a_text_is_its_own",
        ),
    ),
)

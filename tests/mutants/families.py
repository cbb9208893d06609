"""Bugs in the families, at least four in each."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_LAWS = "tests/posterior/test_family_laws.py::"
_RECOVERY = "tests/trainers/test_recovery.py::"
_OPTIMUM = _RECOVERY + "test_the_update_reaches_the_family_s_own_optimum"
_BOTH = _RECOVERY + "test_two_windows_in_turn_are_both_at_once_where_exact"
_COVARIANCE = _LAWS + "test_draws_have_the_covariance_that_the_belief_claims"
_KL = _LAWS + "test_kl_agrees_with_monte_carlo_in_float64"
_POWER_PRIOR = _LAWS + "test_forgetting_is_the_power_prior"
_GROWN = _LAWS + "test_growing_the_head_leaves_old_rows_and_costs_nothing"
_RATIOS = _LAWS + "test_growing_the_head_leaves_old_ratios_of_every_draw"
_BLOB = "tests/posterior/test_blob.py::"
_FLIPOUT = "tests/posterior/test_flipout.py::"
_BORA = "tests/posterior/test_bora.py::"
_BHPEFT = "tests/posterior/test_bhpeft.py::"
_MONTECLORA = "tests/posterior/test_monteclora.py::"
_VARIATES = "tests/posterior/test_variates.py::"
_KRON = "tests/posterior/test_kronecker.py::"
_LOWRANK = "tests/posterior/test_gaussian_lowrank.py::"
_INFORMATION = "tests/posterior/test_information.py::"
_SEEN_AGAIN = _BORA + "test_a_task_seen_again_counts_its_first_evidence_once_also_after_tau_changed"

_DIAGONAL = bugs(
    "diagonal",
    "posterior/gaussian.py",
    (
        "all sequences share one draw",
        "log_sd[k]) * noise[k] for",
        "log_sd[k]) * noise[k][:1] for",
        _COVARIANCE,
    ),
    (
        "variance for deviation",
        "torch.exp(state.log_sd[k]) *",
        "torch.exp(2 * state.log_sd[k]) *",
        _COVARIANCE,
    ),
    (
        "the last class row is dropped for a new one",
        "torch.cat([tensor, base[have:]])",
        "torch.cat([tensor[:-1], base[have - 1 :]])",
        _GROWN,
    ),
    (
        "one slot's KL is left out",
        "for k in state.mean:\n        total",
        "for k in list(state.mean)[1:]:\n        total",
        _KL,
    ),
    (
        "all slots start in one direction",
        "zlib.crc32(slot.name.encode()) & 0x7FFFFFFF",
        "7 & 0x7FFFFFFF",
        _LAWS + "test_the_base_of_old_slots_does_not_depend_on_new_ones",
    ),
)

_BLOBS = bugs(
    "blob",
    "posterior/blob.py",
    (
        "spreads of class rows are shortened with their steps",
        "if k == _ROWS else v",
        'if k.endswith("/head") else v',
        "tests/posterior/test_blob.py::test_class_rows_take_shorter_steps_and_nothing_else_does",
    ),
    ("the anchor pushes", "total = total + 0.5 * ((v", "total = total - 0.5 * ((v", _KL),
    ("the anchor charges nothing", 'sd=self.sd_up) if self.b == "anchored" else nats', "sd=1e6)", _KL),
    (
        "forgetting leaves an anchored B where it is",
        'self.b == "anchored" and beta < 1.0',
        'self.b == "anchored" and beta > 1.0',
        _POWER_PRIOR,
    ),
    (
        "beta on the wrong side of the anchor",
        "beta * v.double() + (1 - beta) * base[k].double()",
        "(1 - beta) * v.double() + beta * base[k].double()",
        _POWER_PRIOR,
    ),
    (
        "A learned beside a moving B becomes a prior",
        "if not self._warming(state):\n            return prior",
        "return prior",
        _BLOB + "test_a_learned_beside_a_moving_b_is_no_prior",
    ),
    (
        "one class is enough to freeze B",
        "_TWO_CLASSES = 2",
        "_TWO_CLASSES = 1",
        _BLOB + "test_b_is_not_frozen_by_a_window_of_one_class",
    ),
    (
        "one good B is enough to freeze all",
        "not all(_full_rank",
        "not any(_full_rank",
        _BLOB + "test_b_is_not_frozen_while_a_column_is_no_direction",
    ),
    (
        "a frozen B goes on moving",
        'if self.b == "anchored" or self._warming(prior)',
        'if self.b != "gaussian"',
        _BLOB + "test_b_stays_where_it_was_frozen",
    ),
) + bugs(
    "blob",
    "posterior/flipout.py",
    (
        "the same signs for every token",
        "torch.randint(0, 2, (tokens, wide + narrow), generator=rng)",
        "torch.randint(0, 2, (1, wide + narrow), generator=rng).expand(tokens, -1)",
        _FLIPOUT + "test_the_mean_of_a_text_keeps_a_sixth_of_its_variance_under_flipout",
    ),
    (
        "signs by place in the batch",
        "manual_seed((site << 31) ^ (bits & 0x7FFFFFFF))",
        "manual_seed(len(rows))",
        _FLIPOUT + "test_signs_belong_to_the_sequence_and_the_slot",
    ),
    (
        "the mean gets signs too",
        "(x * inputs) @ (whole - centre)",
        "(x * inputs) @ whole",
        _FLIPOUT + "test_a_token_alone_sees_the_belief_s_variance",
    ),
)

_SHARES = bugs(
    "information",
    "posterior/information.py",
    (
        "of a site's slots the last alone counts",
        "sites.setdefault(site_of(slot), []).append(slot)",
        "sites[site_of(slot)] = [slot]",
        _INFORMATION + "test_a_site_s_share_is_the_divergence_of_its_marginals",
    ),
    (
        "what lies between sites is not told",
        "if abs(rest) > _NOTHING * whole",
        "if abs(rest) > whole",
        _INFORMATION + "test_sites_add_up_to_the_divergence_and_none_is_below_zero",
    ),
) + bugs(
    "information",
    "posterior/family.py",
    (
        "a site is told what all were taught",
        "for k, v in held.items() if k in slots}",
        "for k, v in held.items()}",
        _INFORMATION + "test_a_site_that_nothing_touched_was_taught_nothing",
    ),
)

_KRONS = bugs(
    "gaussian_kron",
    "posterior/kronecker.py",
    (
        "old evidence counted twice",
        "before = like.double()",
        "before = 2 * like.double()",
        _KRON + "test_both_partial_traces_are_those_of_all_evidence_in_any_windows",
    ),
    (
        "columns are not weighed by what was seen of them",
        "before.trace() * prior.right[k].double()",
        "prior.right[k].double()",
        _KRON + "test_both_partial_traces_are_those_of_all_evidence_in_any_windows",
    ),
    (
        "evidence in weights, not in deviations",
        "rows[k].double() * torch.exp(prior.log_sd[k].double())",
        "rows[k].double()",
        _KRON + "test_evidence_that_is_a_product_is_kept_whole",
    ),
    (
        "log determinants with the wrong sign",
        "belief.known[slot].log().sum() - prior.known[slot].log().sum()",
        "prior.known[slot].log().sum() - belief.known[slot].log().sum()",
        _KL,
    ),
    (
        "moves are charged by the base alone",
        "(prior.known[slot] * turned_by.square())",
        "turned_by.square()",
        _KL,
    ),
    ("beta on the mean alone", "{k: beta * v for k, v in state.left.items()}", "state.left", _POWER_PRIOR),
    ("beta once too often", "kept = beta * known / (1", "kept = beta * beta * known / (1", _POWER_PRIOR),
    (
        "draws as narrow as variances",
        "known[slot].rsqrt().to(standard",
        "known[slot].reciprocal().to(standard",
        _COVARIANCE,
    ),
    ("draws in a basis", "(q.mT @ standard @ p)", "standard", _RATIOS),
) + bugs(
    "gaussian_kron",
    "posterior/gaussian_kron.py",
    (
        "a new class row that is known already",
        "torch.nn.functional.pad(left, (0, missing, 0, missing))",
        "torch.nn.functional.pad(left, (0, missing, 0, missing), value=1.0)",
        _RATIOS,
    ),
)

_LOWRANKS = bugs(
    "gaussian_lowrank",
    "posterior/lowrank.py",
    (
        "moves are charged by the diagonal alone",
        "0.5 * (z.square().sum() + (prior.whitened @ z).square().sum())",
        "0.5 * z.square().sum()",
        _KL,
    ),
    (
        "log determinants with the wrong sign",
        "_log_det(belief.core) - _log_det(prior.core)",
        "_log_det(prior.core) - _log_det(belief.core)",
        _KL,
    ),
    (
        "old directions make way for new ones",
        "torch.cat([flat(state.factor, names, lead=1), flat(rows, names, lead=1)])",
        "torch.cat([flat(state.factor, names, lead=1)[:0], flat(rows, names, lead=1)])",
        _LOWRANK + "test_windows_in_turn_are_kept_together",
    ),
    (
        "old evidence counted twice",
        "torch.cat([flat(state.factor, names, lead=1), flat(rows, names, lead=1)])",
        "torch.cat([flat(state.factor, names, lead=1)] * 2 + [flat(rows, names, lead=1)])",
        _LOWRANK + "test_windows_in_turn_are_kept_together",
    ),
    (
        "the weakest directions are kept",
        "vectors[:, -rank:]",
        "vectors[:, :rank]",
        _LOWRANK + "test_a_move_along_a_kept_direction_costs_what_the_curvature_says",
    ),
    (
        "twice what was dropped is reported",
        "0.5 * torch.log1p(values[:-rank]",
        "torch.log1p(values[:-rank]",
        _LOWRANK + "test_what_was_dropped_is_reported_in_nats",
    ),
    ("beta on the wrong side", "pull = (1 - beta) * lent", "pull = beta * lent", _POWER_PRIOR),
    ("beta squared on the factor", "beta**0.5 * g", "beta * g", _POWER_PRIOR),
    ("draws with H'H twice", "root = (1 + values.clamp_min(0.0)).sqrt()", "root = 1 + values", _COVARIANCE),
    (
        "the other sites are taken for known",
        "cholesky(belief.core @ belief.core.T - own @ own.T)",
        "cholesky(torch.eye(len(own), dtype=own.dtype))",
        _INFORMATION + "test_a_site_s_share_is_the_divergence_of_its_marginals",
    ),
) + bugs(
    "gaussian_lowrank",
    "posterior/gaussian_lowrank.py",
    (
        "a window's precision on top of the last estimate's",
        "mean, spread = state.state.mean, prior.state",
        "mean, spread = state.state.mean, state.state",
        _OPTIMUM + "[gaussian_lowrank]",
    ),
    (
        "no window without a little forgetting",
        "if beta == 1.0:",
        "if beta == 2.0:",
        _LAWS + "test_remembering_everything_returns_the_state_itself",
    ),
    (
        "a new class row that is known already",
        "torch.zeros(factor.shape[0], missing, *base.shape[1:])",
        "torch.ones(factor.shape[0], missing, *base.shape[1:])",
        _RATIOS,
    ),
)

_POINTS = bugs(
    "point",
    "posterior/point.py",
    (
        "a point forgets",
        "del base, beta\n        return state",
        "return base if beta < 1.0 else state",
        _LAWS + "test_more_forgetting_moves_precision_monotonically_towards_the_base",
    ),
    (
        "the window's work is thrown away",
        "del state, prior, facts\n        return posterior",
        "return prior",
        _OPTIMUM + "[point]",
    ),
    (
        "a point is charged",
        "del state, prior\n        return torch.zeros((), dtype=torch.float64)",
        "return sum((state.point[k].double() - v).square().sum() for k, v in prior.point.items())",
        _KL,
    ),
    (
        "class rows stay",
        "moving=sorted(prior.point)",
        'moving=sorted(set(prior.point) - {"head"})',
        _OPTIMUM + "[point]",
    ),
)

_HYBRIDS = bugs(
    "bhpeft",
    "posterior/bhpeft.py",
    (
        "a mean over weights for their sum",
        "return gaussian.kl(state, prior)",
        "return gaussian.kl(state, prior) / sum(v.numel() for v in state.mean.values())",
        _BHPEFT + "test_the_charge_is_a_sum_over_weights_of_all_parts",
    ),
    (
        "the anchored deviation is learned",
        'return self.up == "anchored" and coordinate',
        'return self.up == "frozen" and coordinate',
        _BHPEFT + "test_an_anchored_way_up_never_firms_and_pays_for_its_way",
    ),
    (
        "a warm start does not reach a frozen way up",
        "centres.get(s.name, _outward(s, seed=seed)) for s in frozen",
        "_outward(s, seed=seed) for s in frozen",
        _BHPEFT + "test_a_warm_start_is_kept_in_every_form",
    ),
    (
        "one deviation for all roles",
        'getattr(self, f"sd_{slot.role}")',
        "self.sd_down",
        _BHPEFT + "test_each_role_has_a_deviation_of_its_own",
    ),
    (
        "prefix values are left out",
        "random = [s for s in slots if s not in frozen]",
        'random = [s for s in slots if s not in frozen and s.role != "prefix_value"]',
        _BHPEFT + "test_every_slot_of_every_part_is_random_and_moves",
    ),
    (
        "the posterior is handed on at its prior's spread",
        "del state, prior, facts\n        return posterior",
        "del state, facts\n        return Diagonal(posterior.mean, prior.log_sd, prior.point, prior.flags)",
        _OPTIMUM + "[bhpeft]",
    ),
)

_TASKS = bugs(
    "bora",
    "posterior/hierarchy.py",
    (
        "a task's own message stays in its prior: counted twice",
        "if task not in set(tasks)]",
        "]",
        _SEEN_AGAIN,
    ),
    (
        "a message without tau",
        "rest_precision = 1 + (theirs * tau / (theirs + tau)).sum(dim=0)",
        "rest_precision = 1 + theirs.sum(dim=0)",
        _BORA + "test_evidence_on_one_task_moves_an_unseen_one_by_the_analytic_amount",
    ),
    (
        "a spread's KL with the wrong sign",
        "return 0.5 * (logs - (gained * variance(q)).sum())",
        "return 0.5 * (logs + (gained * variance(q)).sum())",
        _KL,
    ),
    (
        "Theta moves for nothing",
        "0.5 * (apart.sum() + (p.rest_precision * common.square()).sum())",
        "0.5 * apart.sum()",
        _KL,
    ),
    (
        "a task that knows nothing of what Theta does not know",
        "1 / own + (g.tau / own).square() / told_of_theta(g)",
        "1 / own",
        _COVARIANCE,
    ),
    (
        "tau learned as if tasks and Theta were independent",
        "seen = (precision / (precision + at) * (1 - message / told)).sum()",
        "seen = (precision / (precision + at) * (1 + message / told)).sum()",
        _BORA + "test_tau_is_the_fixed_point_of_its_gamma",
    ),
    (
        "tau believes a slope that has no curvature",
        ".clamp(min=lowest)",
        "",
        "tests/trainers/test_tasks.py",
    ),
) + bugs(
    "bora",
    "posterior/bora.py",
    (
        "beta on the wrong side",
        "{k: beta * v for k, v in state.precision.items()}",
        "{k: (1 - beta) * v for k, v in state.precision.items()}",
        _BORA + "test_forgetting_is_the_power_prior_of_theta_and_all_tasks",
    ),
    (
        "what was learned of tau outlasts its evidence",
        "v * (base.tau[k] / v) ** (1 - beta)",
        "v",
        _BORA + "test_what_was_learned_of_tau_is_forgotten_by_the_same_power",
    ),
    (
        "every sequence gets the first one's task",
        "wanted = tasks[:1] if len(set(tasks)) == 1 else tasks",
        "wanted = tasks[:1] * len(tasks)",
        "tests/trainers/test_tasks.py",
    ),
    (
        "a new class row that a task has evidence on",
        "k: gaussian.grow_rows(v, torch.zeros_like(",
        "k: gaussian.grow_rows(v, torch.ones_like(",
        _BORA + "test_a_new_class_gets_a_row_of_theta_and_of_every_task",
    ),
    (
        "the last task's evidence is thrown away",
        "precision |= {site(t, slot): kept[i] for i, t in enumerate(posterior.tasks)}",
        "precision |= {site(t, slot): kept[i] for i, t in enumerate(posterior.tasks[:-1])}",
        _BORA + "test_tasks_of_one_window_share_at_once",
    ),
)

_MONTE = (
    bugs(
        "monteclora",
        "posterior/monteclora.py",
        (
            "the KL on the mean is missing, as in the paper",
            "total = gaussian.kl(_means(state), _means(prior))",
            "total = torch.zeros((), dtype=torch.float64)",
            _KL,
        ),
        (
            "scale charged twice",
            "total = total + wishart_kl(",
            "total = total + 2 * wishart_kl(",
            _KL,
        ),
        (
            "V mixed for its inverse",
            "mixed(torch.exp(-2 * ours.double()), torch.exp(-2 * theirs.double())).log()",
            "mixed(torch.exp(2 * ours.double()), torch.exp(2 * theirs.double())).log().neg()",
            _POWER_PRIOR,
        ),
        (
            "the draws take the mean's noise",
            "z = noise[_GAUSS.format(slot)]",
            "z = noise[slot]",
            _COVARIANCE,
        ),
        (
            "the scale applied twice",
            "torch.exp(state.log_root[slot].double())[:, None] * factor",
            "torch.exp(2 * state.log_root[slot].double())[:, None] * factor",
            _COVARIANCE,
        ),
        (
            "nu = r, where the inverse covariance has no mean",
            "s.shape[0] + self.spare for s in drawn",
            "float(s.shape[0]) for s in drawn",
            _MONTECLORA + "test_the_expected_inverse_covariance_exists",
        ),
    )
    + bugs(
        "monteclora",
        "posterior/divergence.py",
        (
            "the Dirichlet's total with the wrong sign",
            "log_gamma_gap(p, q).sum() - log_gamma_gap(",
            "log_gamma_gap(p, q).sum() + log_gamma_gap(",
            "tests/posterior/test_divergence.py",
        ),
        (
            "the Wishart's degrees of freedom the wrong way round",
            "(n - m) * delta.sum()",
            "(m - n) * delta.sum()",
            "tests/posterior/test_divergence.py",
        ),
    )
    + bugs(
        "monteclora",
        "posterior/variates.py",
        (
            "every row of Bartlett's factor with nu degrees of freedom",
            "freedom = nu.double() - torch.arange(z.shape[-1], dtype=torch.float64)",
            "freedom = nu.double() - torch.zeros(z.shape[-1], dtype=torch.float64)",
            _VARIATES + "test_wishart_factors_have_the_law_of_a_sum_of_outer_products",
        ),
    )
)

FAMILIES: Final[tuple[Mutant, ...]] = (
    *_DIAGONAL,
    *_BLOBS,
    *_KRONS,
    *_LOWRANKS,
    *_POINTS,
    *_HYBRIDS,
    *_TASKS,
    *_MONTE,
    *_SHARES,
)

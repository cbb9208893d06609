"""Bugs in what all families share: objective, divergence, forgetting, noise, one window's update."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, bugs

_LAWS = "tests/posterior/test_family_laws.py::"
_UPDATE = "tests/trainers/test_update.py::"
_RECOVERY = "tests/trainers/test_recovery.py::"
_CURVATURE = "tests/trainers/test_curvature.py"
_KL = "tests/posterior/test_divergence.py"
_LESSON = "tests/trainers/test_lesson.py::"
_POWER_PRIOR = _LAWS + "test_forgetting_is_the_power_prior"
_TO_THE_OPTIMUM = _UPDATE + "test_the_update_recovers_the_analytic_posterior"
_NOISE = _UPDATE + "test_noise_belongs_to_the_example_not_to_its_neighbours"
_DRAWS = _UPDATE + "test_no_two_draws_are_the_same"
_WORKERS = _UPDATE + "test_the_world_size_changes_rounding_only"

CORE: Final[tuple[Mutant, ...]] = (
    *bugs(
        "elbo",
        "posterior/elbo.py",
        (
            "KL is not divided by N_t",
            "self.temperature / self.new_examples * pace",
            "self.temperature * pace",
            _TO_THE_OPTIMUM,
        ),
        (
            "a cycle is charged one step's KL",
            "return steps * 2.0 **",
            "return 2.0 **",
            _UPDATE + "test_a_cyclic_kl_reaches_the_same_posterior",
        ),
        (
            "a cycle begins with the last step's KL",
            "2.0 ** (step - steps)",
            "2.0 ** (-1 - step)",
            "tests/posterior/test_elbo.py",
        ),
        ("the likelihood is a sum and no mean", "return nll_sum / batch", "return nll_sum", _TO_THE_OPTIMUM),
    ),
    *bugs(
        "divergence",
        "posterior/divergence.py",
        (
            "log deviation with the wrong sign",
            "0.5 * torch.expm1(2 * far) - far",
            "0.5 * torch.expm1(2 * far) + far",
            _KL,
        ),
        (
            "KL(p || q) for KL(q || p)",
            "delta = log_sd.double() - prior_log_sd.double()",
            "delta = prior_log_sd.double() - log_sd.double()",
            _KL,
        ),
        (
            "moves measured by the posterior's deviation",
            "(mean.double() - prior_mean.double()) * torch.exp(-prior_log_sd.double())",
            "(mean.double() - prior_mean.double()) * torch.exp(-log_sd.double())",
            _KL,
        ),
        (
            "an epsilon under the prior's deviation",
            "(mean.double() - prior_mean.double()) * torch.exp(-prior_log_sd.double())",
            "(mean.double() - prior_mean.double()) / (torch.exp(prior_log_sd.double()) + 1e-4)",
            _KL,
        ),
        (
            "the series of small steps with a wrong term",
            "near.square() * (1 + near * (2 / 3)",
            "near.square() * (1 - near * (2 / 3)",
            _KL,
        ),
    ),
    *bugs(
        "forgetting",
        "posterior/forgetting.py",
        (
            "beta on the wrong side",
            "kept = beta * torch.exp(-2 * log_sd.double())\n    lent = (1 - beta) *",
            "kept = (1 - beta) * torch.exp(-2 * log_sd.double())\n    lent = beta *",
            _POWER_PRIOR,
        ),
        (
            "means mixed without their precisions",
            "centre = (kept * mean.double() + lent * base_mean.double()) / precision",
            "centre = beta * mean.double() + (1 - beta) * base_mean.double()",
            _POWER_PRIOR,
        ),
        ("the base's belief is not lent", "precision = kept + lent", "precision = kept", _POWER_PRIOR),
        (
            "beta = 1 is rounded",
            "if beta == 1.0:",
            "if beta == 2.0:",
            "tests/posterior/test_forgetting.py",
        ),
        (
            "what was forgotten still counts",
            "return beta * before + new",
            "return before + new",
            "tests/posterior/test_forgetting.py",
        ),
    ),
    *bugs(
        "lesson",
        "trainers/lesson.py",
        (
            "before and after are mixed up",
            "partial(family.mean, prior), partial(family.mean, posterior)",
            "partial(family.mean, posterior), partial(family.mean, prior)",
            _LESSON + "test_a_member_costs_what_the_mean_weights_say_of_it_alone",
        ),
        (
            "a record is called by its id, which no erasure could take out",
            "str(member.event)",
            "member.event_id",
            _LESSON + "test_a_row_names_records_by_place_and_never_by_id_or_text",
        ),
        (
            "the records that moved it least are listed",
            "sorted(fell)[:LISTED]",
            "sorted(fell)[-LISTED:]",
            _LESSON + "test_who_moved_it_most_does_not_depend_on_any_order",
        ),
        (
            "who wins among equals is decided by the order",
            "sorted(fell)[:LISTED]",
            "sorted(fell, key=lambda row: row[0])[:LISTED]",
            _LESSON + "test_who_moved_it_most_does_not_depend_on_any_order",
        ),
    ),
    *bugs(
        "lesson",
        "trainers/line.py",
        (
            "a row that keeps the tensors is worth nothing",
            "(KNOWN, EFFECTIVE) if posterior",
            "(KNOWN,) if posterior",
            _LESSON + "test_what_a_belief_is_worth_follows_from_the_rows",
        ),
    ),
    *bugs(
        "lesson",
        "trainers/branching.py",
        (
            "a branch is worth what the head was",
            "**kept(champion, champion.posterior), **fewer}",
            "**kept(head, head.posterior), **fewer}",
            _LESSON + "test_a_row_that_has_another_s_tensors_is_worth_what_they_are",
        ),
    ),
    *bugs(
        "noise",
        "trainers/noise.py",
        (
            "all examples share the first one's noise",
            "for row, seed in zip(rows, keys, strict=True):",
            "for row, seed in zip(rows, keys[:1] * len(keys), strict=True):",
            _NOISE,
        ),
        (
            "noise that depends on how many are drawn together",
            "row.normal_(generator=torch.Generator().manual_seed(seed))",
            "row.normal_(generator=torch.Generator().manual_seed(seed + len(keys)))",
            _NOISE,
        ),
        (
            "keys whose parts run together",
            '"/".join(map(str, parts))',
            '"".join(map(str, parts))',
            _UPDATE + "test_every_epoch_has_its_own_order_and_noise",
        ),
    ),
    *bugs(
        "update",
        "trainers/update.py",
        (
            "N_t counts epochs",
            "evidence=float(examples) if",
            "evidence=float(examples * schedule.epochs) if",
            _UPDATE + "test_the_number_of_epochs_is_not_evidence",
        ),
        (
            "KL counted once per worker",
            "likelihood_pull[k] + prior_pull[k]",
            "likelihood_pull[k] + job.ranks.world * prior_pull[k]",
            _WORKERS,
        ),
        (
            "shards averaged, whatever their size",
            "scale.likelihood(summed[1:], len(batch))",
            "scale.likelihood(summed[1:], len(batch)) / job.ranks.world",
            _WORKERS,
        ),
        (
            "stale noise: every epoch draws what the first drew",
            "key(job.seed, epoch, i, d) for i in shard",
            "key(job.seed, i, d) for i in shard",
            _DRAWS,
        ),
        (
            "all draws of a step are one draw",
            "key(job.seed, epoch, i, d) for i in shard",
            "key(job.seed, epoch, i) for i in shard",
            _DRAWS,
        ),
        (
            "noise by place in the shard",
            "key(job.seed, epoch, i, d) for i in shard",
            "key(job.seed, epoch, i, d) for i, _ in enumerate(shard)",
            _WORKERS,
        ),
        (
            "the prior is where the step stands",
            "kl = job.family.kl(job.family.place(job.prior, leaves, shape=shape), job.prior)",
            "kl = job.family.kl(job.family.place(job.prior, leaves, shape=shape), shape)",
            _RECOVERY + "test_the_update_reaches_the_family_s_own_optimum[gaussian_lowrank]",
        ),
        (
            "curvature at the mean",
            "draw = job.family.sample(state, job.noise(state, keys), job.tasks_of(positions))",
            "draw = job.family.mean(state, job.tasks_of(positions))",
            _CURVATURE,
        ),
        (
            "a sample's curvature stands for the sample alone",
            "rows = rows * (job.evidence / len(positions) / job.schedule.temperature) ** 0.5",
            "rows = rows / job.schedule.temperature**0.5",
            _CURVATURE,
        ),
        (
            "curvature that temperature sharpens",
            "job.evidence / len(positions) / job.schedule.temperature",
            "job.evidence / len(positions) * job.schedule.temperature",
            _RECOVERY + "test_evidence_and_temperature_say_how_much_the_data_count[gaussian_lowrank]",
        ),
        (
            "the last shard's curvature is left out",
            "range(rank * batch, len(positions), job.ranks.world * batch)",
            "range(rank * batch, len(positions) - batch, job.ranks.world * batch)",
            _RECOVERY + "test_workers_change_rounding_only[2-gaussian_lowrank]",
        ),
    ),
    *bugs(
        "likelihood",
        "trainers/likelihood.py",
        (
            "curvature without the classes' competition",
            "turned - probs * turned.sum(dim=-1, keepdim=True)",
            "turned",
            "tests/trainers/test_likelihood.py",
        ),
    ),
)

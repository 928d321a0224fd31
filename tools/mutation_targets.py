"""What is mutated, which claims and tests are nearest to it, and which mutants mean the same as the original."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EQUIVALENT", "NOT_RUN", "TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """Functions of a module, below attnembed/; ``claims`` are run first, in this order, then the subject's others."""

    module: str
    functions: tuple[str, ...]
    claims: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def subject(self) -> str:
        """Whose claims are run."""
        return "structured" if self.module.startswith(("structured/", "optim")) else "attention"


# Claims that train for seconds and look at nothing that the others do not.
NOT_RUN = ("scale-decides", "small-step", "finite-width")

_THEORY, _TESTS = "attention/theory", "tests/attention/theory"

TARGETS = (
    Target(
        f"{_THEORY}/smoothness.py",
        ("smoothness_bound", "_largest_diameter"),
        ("hessian-bound", "loss-monotone"),
        (f"{_TESTS}/test_smoothness.py",),
    ),
    Target(
        f"{_THEORY}/one_step.py",
        ("one_step_prediction", "one_step_bound", "gaussian_one_step_bound", "_per_frequency", "_times", "_peak"),
        ("one-step-exact", "one-step-bound", "gaussian-bound"),
        (f"{_TESTS}/test_one_step.py", "tests/attention/test_one_step.py"),
    ),
    Target(
        f"{_THEORY}/stationarity.py",
        ("divergence",),
        ("no-critical-point",),
        (f"{_TESTS}/test_stationarity.py", f"{_TESTS}/test_rounding.py"),
    ),
    Target(
        f"{_THEORY}/basin.py",
        ("basin_condition", "basin_bound", "large_step_condition", "large_step_size", "_gap"),
        ("basin-selection", "large-step"),
        (f"{_TESTS}/test_basin.py", f"{_TESTS}/test_rounding.py"),
    ),
    Target(f"{_THEORY}/basin.py", ("small_step_condition",), ("small-step",), (f"{_TESTS}/test_basin.py",)),
    Target(
        f"{_THEORY}/rates.py",
        ("Asymptotics.p", "asymptotics", "_pulls", "_interior_multipliers", "_offset", "_row_basis"),
        ("other-than-top", "asymptote", "attention-decay", "angle-lower-bound", "transient-rate"),
        (f"{_TESTS}/test_rates.py", f"{_TESTS}/test_rounding.py"),
    ),
    Target(
        f"{_THEORY}/family.py",
        ("Family.n_positive", "Family.kappa", "Family.lift", "Family._rate", "Family.observe", "Family._attention"),
        ("family-reduction", "failure-window"),
        (f"{_TESTS}/test_family.py",),
    ),
    Target(
        f"{_THEORY}/orthogonal.py",
        (
            "orthogonal_embeddings",
            "orthogonal_margin",
            "private_margin",
            "single_margin",
            "balanced_pair_margin",
            "unequal_pair_margin",
            "_margin",
        ),
        ("orthogonal-margin", "private-margin", "unequal-pair", "single-margin", "balanced-pair"),
        (f"{_TESTS}/test_orthogonal.py",),
    ),
    Target(f"{_THEORY}/ties.py", ("tie_invariant",), ("tie-invariant", "ties-counted"), (f"{_TESTS}/test_ties.py",)),
    Target(
        "attention/passes.py",
        (
            "TokenSums.B",
            "_plain_sums",
            "_AnchoredCounts.sums",
            "_loss_factors",
            "AnchoredPass.__init__",
            "AnchoredPass.scaled_B",
            "AnchoredPass.sums",
            "AnchoredPass.scaled_hessian",
            "AnchoredPass.scaled_hessian_vector",
            "AnchoredPass._curvature",
            "loss_gap",
        ),
        ("hessian-exact", "gradients-exact", "gradient-saturation", "loss-gap-limit"),
        ("tests/attention/test_passes.py",),
    ),
    Target(
        "attention/selection.py",
        ("TokenValues.of", "TokenValues.differences", "TokenValues.shortfalls", "top_tokens", "select"),
        ("ties-counted", "attention-decay", "basin-selection"),
        ("tests/attention/test_selection.py", f"{_TESTS}/test_rounding.py"),
    ),
    Target(
        "attention/selection.py", ("margin_constraints",), ("kkt-certificate",), ("tests/attention/test_selection.py",)
    ),
    Target(
        "margins.py",
        (
            "kkt_residual",
            "_residual",
            "_solve",
            "_least_distance",
            "_tight",
            "_certified",
            "_not_separable",
        ),
        ("kkt-certificate", "orthogonal-margin", "single-margin"),
        ("tests/test_margins.py",),
    ),
    Target("margin_rows.py", ("largest",), ("kkt-certificate", "orthogonal-margin"), ("tests/test_margins.py",)),
    Target(
        "clocks.py",
        (
            "log_time_of",
            "System._unit",
            "System.rate",
            "_TimeSystem.log_speed",
            "_TimeSystem.rate",
            "_TimeSystem.jacobian",
            "_LogTimeSystem.log_speed",
            "_ArclengthSystem._log_slowness",
            "_ArclengthSystem.rate",
            "_ArclengthSystem.observe",
        ),
        ("loss-gap-limit", "asymptote", "tie-invariant", "max-margin-direction", "loss-monotone"),
        ("tests/test_integration.py", "tests/attention/test_flow.py"),
    ),
    Target(
        "gibbs.py",
        ("log_partition", "probabilities", "AnchoredSoftmax.__init__", "AnchoredSoftmax.sensitivity"),
        ("gradients-exact", "gradient-saturation", "hessian-exact", "no-critical-point"),
        ("tests/test_gibbs.py", "tests/attention/test_passes.py"),
    ),
    Target(
        "optim.py",
        ("SGD._step", "Adam._step", "Adam.update", "Optimizer.rescale", "Optimizer.rates"),
        ("folding", "effective-steps", "offline-ratio"),
        ("tests/test_optim.py",),
    ),
    Target(
        "structured/chain.py",
        ("score", "decode", "_best_prefixes", "chain_marginals", "ChainBatch.pad"),
        ("chain-enumeration", "viterbi-enumeration", "sampling", "padding", "single-precision"),
        ("tests/structured/test_chain.py", "tests/structured/test_chain_laws.py"),
    ),
    Target(
        "structured/forward_backward.py",
        (
            "Posterior.pair_counts",
            "Posterior.pair_sums",
            "Posterior.carry",
            "posterior",
            "_exp_posterior",
            "relative",
            "_log_posterior",
            "_log_normalised",
            "_log_sum",
            "reduced",
        ),
        ("chain-enumeration", "viterbi-enumeration", "log-partition-gradient", "constraints"),
        ("tests/structured/test_chain.py", "tests/structured/test_chain_laws.py"),
    ),
    Target(
        "structured/constraints.py",
        ("bio_constraints", "split_forbidden", "constrained", "add_ends", "end_gradients"),
        ("constraints",),
        ("tests/structured/test_constraints.py",),
    ),
    Target(
        "structured/grid.py",
        ("contrast_weights", "grid_map", "icm", "mean_field", "_two_label_update", "_softmax", "_surplus"),
        ("mean-field", "min-cut", "grid-objectives"),
        ("tests/structured/test_grid.py",),
    ),
    Target(
        "structured/grid_potentials.py",
        ("GridPotentials.score", "GridPotentials.field", "GridPotentials.pair_counts", "GridPotentials.weighted"),
        ("grid-objectives", "mean-field", "min-cut"),
        ("tests/structured/test_grid.py",),
    ),
    Target(
        "structured/grid_objectives.py",
        ("_mean_field", "_ssvm", "_pseudolikelihood", "_unary", "_mean_cross_entropy"),
        ("grid-objectives", "mean-field"),
        ("tests/structured/test_grid.py",),
    ),
    Target(
        "structured/min_cut.py",
        ("best_binary_labels", "_spin_model", "_incident", "_leading_cut", "_exact_spins", "_integers"),
        ("min-cut",),
        ("tests/structured/test_min_cut.py",),
    ),
    Target(
        "structured/objectives.py",
        (
            "nll",
            "_nll_terms",
            "_nll_terms_in_logarithms",
            "_others",
            "_pair_gradient",
            "ssvm",
            "pseudolikelihood",
            "marginal",
            "unary_only",
            "_augment",
            "_true_potentials",
        ),
        ("zero-pairwise", "objective-values", "objective-gradients", "hinge-bounds-hamming"),
        ("tests/structured/test_objectives.py", "tests/structured/test_chain_laws.py"),
    ),
    Target(
        "structured/scaling.py",
        (
            "best_pairwise_factor",
            "scale_diagnosis",
            "fold",
            "normalised",
            "normalised_gradient",
            "_centred",
            "bigram_potentials",
            "Parametrisation.pull_back",
        ),
        ("folding", "offline-ratio", "online-descends"),
        ("tests/structured/test_scaling.py",),
    ),
    Target(
        "structured/theory.py",
        ("component_norms", "effective_step_size", "scale_objective", "fit_scales"),
        ("effective-steps", "convex-in-scales", "newton-scales", "offline-ratio"),
        ("tests/structured/test_theory.py",),
    ),
)

# A sentence for every mutant that no check can catch, by name.
EQUIVALENT: dict[str, str] = {
    "attention/theory/rates.py:asymptotics: unit = float(np.abs(program.differences).max(initial=0.0)) or 1.0 [function: np.abs(program.differences) -> program.differences]": (
        "any positive unit cancels from the result"
    ),
    "attention/theory/rates.py:_interior_multipliers: if not (0 < size < np.inf and np.isfinite(target / size).all()): [logic: 0 < size < np.inf and np.isfinite(target / size).all() -> 0 < size < np.inf or np.isfinite(target / size).all()]": (
        "differs only where multipliers leave the range of floats, and there the hypotheses fail in either case"
    ),
    "margins.py:_least_distance: u, q = u / residual**2, q / residual**2 [power: residual ** 2 -> residual] (2)": (
        "a point of the wrong length is not tight on its support, from which `_tight` then computes it anew"
    ),
}

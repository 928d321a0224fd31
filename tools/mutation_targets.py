"""The functions to mutate, their nearest claims and tests, and the mutants that mean the same as the original."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EQUIVALENT", "INTERNAL", "TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """Functions of a module, below attnembed/; among the claims that call one of them, ``claims`` are run first."""

    module: str
    functions: tuple[str, ...]
    claims: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def subject(self) -> str:
        """Whose claims are run."""
        return "structured" if self.module.startswith(("structured/", "optim")) else "attention"


_THEORY, _TESTS = "attention/theory", "tests/attention/theory"

TARGETS = (
    Target(
        f"{_THEORY}/smoothness.py",
        ("smoothness_bound", "_largest_diameter", "_farthest", "_eccentricities"),
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
        ("basin_of", "basin_bound", "large_step_of", "large_step_size", "_gap"),
        ("basin-selection", "large-step"),
        (f"{_TESTS}/test_basin.py", f"{_TESTS}/test_rounding.py"),
    ),
    Target(f"{_THEORY}/basin.py", ("small_step_condition",), ("small-step",), (f"{_TESTS}/test_basin.py",)),
    Target(
        f"{_THEORY}/rates.py",
        ("Asymptotics.p", "asymptotics_of", "_pulls", "_interior_multipliers", "_offset", "_row_basis"),
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
            "uniform_sums",
            "_plain_outputs",
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
        f"{_THEORY}/window.py",
        ("random_step_window", "_least_share", "_window"),
        ("random-step-window",),
        (f"{_TESTS}/test_window.py",),
    ),
    Target(f"{_THEORY}/steepest.py", ("steepest_bound",), ("steepest-l2",), (f"{_TESTS}/test_steepest.py",)),
    Target(
        f"{_THEORY}/path.py",
        ("regularisation_path", "_Gap.__init__", "_Gap.stationarity", "_Gap.on_sphere"),
        ("regularisation-path",),
        (f"{_TESTS}/test_path.py",),
    ),
    Target(f"{_THEORY}/_program.py", ("solve_program",), ("basin-selection",), (f"{_TESTS}/test_rates.py",)),
    Target(f"{_THEORY}/optima.py", ("local_optima",), ("local-optimum",), (f"{_TESTS}/test_optima.py",)),
    Target(
        "attention/first_step.py",
        ("one_step",),
        ("one-step-exact", "one-step-bound", "any-loss-one-step"),
        ("tests/attention/test_one_step.py",),
    ),
    Target(
        "attention/descent.py",
        ("normalised_descent",),
        ("normalised-step-contraction", "polyak-contraction"),
        ("tests/attention/test_descent.py",),
    ),
    Target(
        "attention/data.py",
        (
            "TokenDataset.frequency",
            "TokenDataset.signed_frequency",
            "TokenDataset.posterior_difference",
            "TokenDataset.token_kinds",
            "TokenDataset.check_assumption",
        ),
        ("alpha-phi-delta", "ties-counted", "one-step-exact"),
        ("tests/attention/test_data.py",),
    ),
    Target(
        "attention/dense_passes.py",
        (
            "dense_gradients",
            "_sums",
            "_factors",
            "DenseField._weights",
            "DenseField.force",
            "DenseField.jacobian",
            "DenseField.observe",
        ),
        ("gradients-exact", "asymptote", "loss-gap-limit"),
        ("tests/attention/test_dense_passes.py",),
    ),
    Target(
        "attention/geometry.py",
        ("_Steepest.step", "_Steepest._minimum", "_into_cube", "_into_cross_polytope"),
        ("steepest-linf", "steepest-l1", "steepest-margin"),
        ("tests/attention/test_geometry.py",),
    ),
    Target(
        "losses.py",
        (
            "Loss.rise",
            "Loss.log_pull",
            "Loss.curvature",
            "logistic_derivative",
            "logistic_second_derivative",
            "logistic_inverse",
            "_logistic_increase",
            "_exp_derivative",
            "_exp_inverse",
            "_exp_increase",
            "softplus",
            "_scaled",
            "_softplus_inverse",
            "_softplus_increase",
            "_hinge",
            "_hinge_derivative",
            "_hinge_second",
            "_hinge_inverse",
            "_hinge_increase",
        ),
        ("loss-functions", "cross-entropy", "any-loss-one-step"),
        ("tests/test_losses.py", "tests/test_general_losses.py"),
    ),
    Target("margin_norms.py", ("solve_linear",), ("steepest-margin", "steepest-l1"), ("tests/test_margins.py",)),
    Target(
        "enclosures.py",
        ("rounding_constant", "margin_enclosure", "_low", "_high", "_norm_above", "_norm_below"),
        ("margin-enclosure",),
        ("tests/test_enclosures.py",),
    ),
    Target(
        "structured/long_chains.py",
        ("ExpEnds._join_forward", "ExpEnds.after", "ExpEnds.bound", "_exp_transfers", "LogEnds.after", "walk"),
        ("long-chains", "long-samples"),
        ("tests/structured/test_long_chains.py",),
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
        (
            "log_partition",
            "probabilities",
            "AnchoredSoftmax.__init__",
            "AnchoredSoftmax.sensitivity",
            "cross_entropy",
        ),
        ("softmax-functions", "cross-entropy", "gradients-exact", "gradient-saturation", "hessian-exact"),
        ("tests/test_gibbs.py", "tests/attention/test_passes.py"),
    ),
    Target(
        "optim.py",
        ("SGD._step", "Adam._step", "Adam.update", "Optimizer.rescale", "Optimizer.rates"),
        ("optimiser-steps", "optimiser-follows", "folding"),
        ("tests/test_optim.py",),
    ),
    Target(
        "pending.py",
        (
            "PendingRows.__init__",
            "PendingRows.take",
            "PendingRows.put",
            "PendingRows._possible",
            "PendingRows.settle",
            "PendingRows._catch_up",
            "_Rules.__init__",
            "_Rules.apply",
            "gauss_rules",
            "_nodes_needed",
            "distinct",
        ),
        (),
        ("tests/test_pending.py",),
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
        ("contrast_weights", "grid_map", "icm", "mean_field", "_sweeps", "_two_label_sweeps", "_softmax", "_surplus"),
        ("mean-field", "min-cut", "grid-objectives"),
        ("tests/structured/test_grid.py",),
    ),
    Target(
        "structured/checkerboard.py",
        ("two_label_sweeps", "_Half.__init__", "_Half.update", "_Half._fold", "_Half.unfold"),
        ("mean-field", "grid-objectives"),
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
    Target(
        "infeasibility.py",
        ("infeasibility_proof", "_exact_weights"),
        (),
        ("tests/test_infeasibility.py",),
    ),
    Target(
        "margin_rows.py",
        ("PairRows.price", "PairRows.take", "PairRows.choose"),
        ("kkt-certificate", "orthogonal-margin"),
        ("tests/test_margins.py",),
    ),
    Target(
        "structured/certified.py",
        ("_log_partition",),
        ("chain-enumeration",),
        ("tests/structured/test_certified.py",),
    ),
    Target(
        "structured/decoding.py",
        ("chain_k_best", "_best", "_largest", "chain_posterior_decode"),
        ("viterbi-enumeration",),
        ("tests/structured/test_decoding.py",),
    ),
    Target(
        "structured/base.py",
        ("StructuredModel.pass_through", "times"),
        ("folding", "online-descends"),
        ("tests/structured/test_model.py",),
    ),
    Target(
        "structured/stepping.py",
        ("Stepper.epoch", "Stepper._row", "Stepper._even_out", "Stepper._rescale", "Stepper._fold"),
        ("folding", "online-descends", "effective-steps"),
        ("tests/structured/test_training.py",),
    ),
    Target(
        "structured/layers/core.py",
        (
            "Dense.forward",
            "Dense.backward",
            "ReLU.backward",
            "Tanh.backward",
            "LayerNorm.forward",
            "LayerNorm.backward",
        ),
        (),
        ("tests/structured/test_networks.py",),
    ),
    Target(
        "structured/layers/images.py",
        ("Conv2D.backward", "MaxPool2D.forward", "MaxPool2D.backward", "Coordinates.forward"),
        (),
        ("tests/structured/test_networks.py",),
    ),
    Target(
        "structured/layers/sequences.py",
        ("Embedding.backward", "EmbeddingSum.backward", "BiRecurrent.forward", "BiRecurrent.backward"),
        (),
        ("tests/structured/test_networks.py",),
    ),
)

# What a line decides that is no public prediction or result, by MODULE:FUNCTION: LINE. Every mutant of such a line is
# counted apart, those that claims catch as well.
INTERNAL: dict[str, str] = {
    'attention/data.py:TokenDataset.check_assumption: detail = f": {\', \'.join(found)}" if found else ""': (
        "the text of a violation"
    ),
    "attention/dense_passes.py:DenseField.force: if (square := B.dot(B)) <= (2.0 * _NOTHING * self._largest_value) ** 2:": (
        "where a force is rounding alone and the flow may rest"
    ),
    "attention/dense_passes.py:_sums: if (own := float(factors[1].dot(factors[1]))) > (_SMALLEST_SHARE * loss) ** 2 * square:": (
        "which of two forms is taken, which agree to rounding"
    ),
    "margin_rows.py:PairRows.choose: if index.size <= count and len(self.first) <= 10 * self.shape[1]:": (
        "how many rows a round takes up"
    ),
    "structured/grid_potentials.py:GridPotentials.weighted: if values.ndim < 4 or values.shape[3] > _FEW_LABELS:": (
        "which of two loops forms the products"
    ),
    "attention/dense_passes.py:DenseField.force: if terms > SMALLEST_SQUARE and square <= (_NOTHING * terms) ** 2:": (
        "where a force is rounding alone and the flow may rest"
    ),
    "attention/dense_passes.py:DenseField.observe: if not -u.min() + 2.0 * self._largest_value <= _SPAN:  # delta is a difference of values": (
        "which of two forms is taken"
    ),
    "attention/dense_passes.py:_sums: if short and level < _LEVEL:": "which of two forms is taken, which agree to rounding",
    "attention/dense_passes.py:_sums: short = level < _SHORT and square < _SHORT": (
        "which of two forms is taken, which agree to rounding"
    ),
    "attention/dense_passes.py:dense_gradients: if not SMALLEST_SQUARE < abs(gradients[0].dot(gradients[1])) + square < math.inf:": (
        "which of two forms is taken, which agree to rounding"
    ),
    "attention/geometry.py:_Steepest._minimum: if np.abs(move).max() < _SETTLED:": (
        "when the search for one step ends"
    ),
    "attention/theory/optima.py:local_optima: examined += 1": ("how much is examined before it is refused"),
    "attention/theory/path.py:_Gap.stationarity: return self.on_sphere(q, radius)[1] + (norm - 1) * q": (
        "what keeps the root finder from a singular matrix; its points are put back on the sphere"
    ),
    "clocks.py:_TimeSystem.rate: if _TINY < square < 1.0 / _TINY and abs(power) < _POWER:  # the common case": (
        "which of two forms is taken"
    ),
    "enclosures.py:_high: slack = 2 * _UNIT * _norm_above(combination) + 16 * d * support.size * _TINY": (
        "a margin of safety for underflow"
    ),
    "enclosures.py:_low: if critical.size * d <= _MOST_EXACT:": ("how much is summed exactly"),
    "enclosures.py:_low: slack = rounding_constant(2 * d + 8) * rows.sizes * p_norm + 2 * d * _TINY": (
        "a margin of safety, which no rows were found to use up"
    ),
    "enclosures.py:_norm_above: return scale * (math.sqrt(square) * (1 + 8 * _UNIT) + len(x) * 1e-160) * (1 + 2 * _UNIT)": (
        "a margin of safety of a few roundings"
    ),
    "enclosures.py:_norm_below: return above * (1 - 32 * _UNIT) - len(x) * 1e-160 * above": (
        "a margin of safety of a few roundings"
    ),
    "enclosures.py:margin_enclosure: if high - low > _WIDTH * high:": ("when it is worth summing exactly"),
    "gibbs.py:cross_entropy: if logits.dtype == np.float32 and k > 1 and np.min(loss, initial=1.0) < np.finfo(np.float32).tiny:": (
        "when it is worth computing in double precision"
    ),
    "infeasibility.py:infeasibility_proof: exact = _exact_weights(rows[support], weights[support]) if support.size * rows.shape[1] <= _MOST_EXACT else None": (
        "how much is done in fractions"
    ),
    "margin_rows.py:PairRows.choose: order = index[np.argsort(-depth)]": (
        "which rows are tried first; the solution is checked on all"
    ),
    "margin_rows.py:largest: if count >= values.size:": ("which rows are tried first; the solution is checked on all"),
    "margin_rows.py:largest: return np.sort(np.argpartition(values, -count)[-count:])": (
        "which rows are tried first; the solution is checked on all"
    ),
    "margins.py:_certified: if residual <= min(CERTIFIED + ROUNDING * cancellation, LOOSEST):": (
        "a threshold of the solver"
    ),
    "margins.py:_least_distance: if d > 1.5 * k:  # the triangular factor is the same least-squares problem in k + 1 rows": (
        "which of two forms is taken"
    ),
    "margins.py:_solve: if suspect and rounds > 1 and p_norm > GROWTH[rounds > 2] * previous:": (
        "when it is worth looking for a certificate early"
    ),
    "margins.py:_tight: if short.max() <= ROUNDING * np.linalg.norm(q):": (
        "a threshold of the solver; the certificate judges the solution"
    ),
    "margins.py:_tight: support = support[push > 0.0]": (
        "which rows are exchanged; the certificate judges the solution"
    ),
    "pending.py:PendingRows._catch_up: size = max(1, _BLOCK // max(1, self.parameter[0].size))": (
        "how many rows are done at a time"
    ),
    "structured/certified.py:_log_partition: return context.next_plus(x) if up else context.next_minus(x)": (
        "the last of 40 digits, of which the result has 17"
    ),
    "structured/decoding.py:chain_k_best: step = max(1, _CACHED // (n_labels * n_labels * number))": (
        "how many sequences are decoded at a time"
    ),
    "structured/forward_backward.py:posterior: blocks = cut(packing, len(columns)) if dtype == np.float64 else None": (
        "which of two plans is taken"
    ),
    "structured/forward_backward.py:posterior: if result is not None and result.resolution <= resolution:": (
        "whether logarithms are used"
    ),
    "structured/forward_backward.py:reduced: if chunk >= len(pairwise):": ("how much is done at a time"),
    "structured/long_chains.py:ExpEnds.bound: here, b = slice(offsets[t], offsets[t + 1]), offsets[t + 1] - offsets[t]": (
        "a bound that decides whether logarithms are used"
    ),
    'structured/long_chains.py:ExpEnds.bound: moved = np.einsum("iob,ob->ib", self._through[:, :, here], out[:, here]) * growth[:, here]': (
        "a bound that decides whether logarithms are used"
    ),
    "structured/min_cut.py:best_binary_labels: rounding += 8 * _EPS * incident": (
        "a margin of safety: what it leaves open is decided exactly"
    ),
    "structured/min_cut.py:best_binary_labels: settled = np.abs(field) > incident + rounding": (
        "what is decided without a cut"
    ),
    "structured/objectives.py:_true_potentials: if not min(own.min(), pairs.min(initial=0)) > -np.inf:": (
        "which labels are refused"
    ),
    "structured/objectives.py:marginal: needed = float(np.finfo(p.node.dtype).eps * packing.sum(others).min()) if likely else 0.0": (
        "whether logarithms are used"
    ),
    "structured/objectives.py:nll: if not min(unary.min(), pairwise.min()) > -np.inf:": ("which labels are refused"),
    "structured/objectives.py:unary_only: forbidden = np.flatnonzero(unary[rows, labels] == -np.inf)": (
        "which labels are refused"
    ),
    "structured/theory.py:fit_scales: if trial.value <= current.value + 1e-4 * length * slope or length < 1e-10:": (
        "how long a step of the search is"
    ),
}

# A sentence for every mutant that no check can catch, by name.
EQUIVALENT: dict[str, str] = {
    "attention/theory/smoothness.py:_farthest: if 2 * reach[i] <= best: [strict: 2 * reach[i] <= best -> 2 * reach[i] < best]": (
        "a sequence that reaches exactly half the best distance holds no larger one"
    ),
    "attention/theory/smoothness.py:_largest_diameter: X = E - E[occurs].mean(axis=0) [drop: E - E[occurs].mean(axis=0) -> E]": (
        "distances do not depend on the centre, which decides how many sequences can be skipped"
    ),
    "attention/theory/rates.py:asymptotics_of: unit = float(np.abs(D).max(initial=0.0)) or 1.0 [function: np.abs(D) -> D]": (
        "any positive unit cancels from the result"
    ),
    "attention/theory/rates.py:_interior_multipliers: if not (0 < size < np.inf and np.isfinite(target / size).all()): [logic: 0 < size < np.inf and np.isfinite(target / size).all() -> 0 < size < np.inf or np.isfinite(target / size).all()]": (
        "differs only where multipliers leave the range of floats, and there the hypotheses fail in either case"
    ),
    "margins.py:_least_distance: u, q = u / residual**2, q / residual**2 [power: residual ** 2 -> residual] (2)": (
        "a point of the wrong length is not tight on its support, from which `_tight` then computes it anew"
    ),
    "attention/data.py:TokenDataset.posterior_difference: np.divide(self.signed_frequency, self.frequency, out=out, where=self.frequency > 0) [strict: self.frequency > 0 -> self.frequency >= 0]": (
        "a token that does not occur has 0 / 0, which is NaN as it is without the division"
    ),
    "attention/data.py:TokenDataset.token_kinds: occurs, irrelevant = self.frequency > 0, np.abs(self.signed_frequency) <= _ZERO_SHARE * self.frequency [strict: np.abs(self.signed_frequency) <= _ZERO_SHARE * self.frequency -> np.abs(self.signed_frequency) < _ZERO_SHARE * self.frequency]": (
        "a share of exactly zero is below the threshold in either case, and a token that does not occur has no kind"
    ),
    "attention/dense_passes.py:DenseField.observe: if not -u.min() + 2.0 * self._largest_value <= _SPAN:  # delta is a difference of values [constant: 2.0 * self._largest_value -> 2.2 * self._largest_value]": (
        "the general form gives the same numbers to rounding, more slowly"
    ),
    "attention/dense_passes.py:dense_gradients: if not SMALLEST_SQUARE < abs(gradients[0].dot(gradients[1])) + square < math.inf: [drop: abs(gradients[0].dot(gradients[1])) + square -> abs(gradients[0].dot(gradients[1]))]": (
        "decides which of two forms is used, which agree to rounding"
    ),
    "attention/theory/rates.py:_row_basis: return right[singular > (floor or _RANK * singular[0])].T [strict: singular > (floor or _RANK * singular[0]) -> singular >= (floor or _RANK * singular[0])]": (
        "a singular value equal to the threshold to the last digit does not occur"
    ),
    "attention/theory/rates.py:_row_basis: triangle = np.linalg.qr(rows, mode=\"r\") if len(rows) > rows.shape[1] else rows [branch: np.linalg.qr(rows, mode='r') if len(rows) > rows.shape[1] else rows -> rows if len(rows) > rows.shape[1] else np.linalg.qr(rows, mode='r')]": (
        "with or without the triangular factor the rows span the same space"
    ),
    "enclosures.py:_low: bound -= 4 * _UNIT * abs(bound) + _TINY [drop: 4 * _UNIT * abs(bound) + _TINY -> 4 * _UNIT * abs(bound)]": (
        "the term for underflow matters only below the smallest normal float"
    ),
    "losses.py:Loss.rise: near = np.abs(plain) < _PLAIN_SHARE * np.abs(after) [function: np.abs(after) -> after]": (
        "the losses of the package are not negative"
    ),
    "margins.py:_least_distance: if d > 1.5 * k:  # the triangular factor is the same least-squares problem in k + 1 rows [strict: d > 1.5 * k -> d >= 1.5 * k]": (
        "both are the same least-squares problem"
    ),
    "structured/forward_backward.py:posterior: blocks = cut(packing, len(columns)) if dtype == np.float64 else None [branch: cut(packing, len(columns)) if dtype == np.float64 else None -> None if dtype == np.float64 else cut(packing, len(columns))]": (
        "with or without blocks the recursion has the same results to rounding"
    ),
    "structured/forward_backward.py:posterior: if result is not None and result.resolution <= resolution: [sense: result.resolution <= resolution -> result.resolution >= resolution]": (
        "logarithms give the same results to rounding, more slowly"
    ),
    "structured/long_chains.py:_exp_transfers: if b < width:  # blocks that have ended keep their values [strict: b < width -> b <= width]": (
        "where nothing has ended an empty slice is copied"
    ),
    "structured/long_chains.py:walk: if b > started:  # the blocks that end here [strict: b > started -> b >= started]": (
        "where no block ends an empty slice is written"
    ),
    "structured/min_cut.py:_spin_model: return field, couplings, 8 * _EPS * size + _TINY [sign: 8 * _EPS * size + _TINY -> 8 * _EPS * size - _TINY]": (
        "the smallest float is below the rounding of any field that is not zero, and zero is left open either way"
    ),
    "attention/theory/rates.py:_offset: return x, float(np.linalg.norm(A.T @ lam - target) / np.linalg.norm(target)) [factor: np.linalg.norm(A.T @ lam - target) / np.linalg.norm(target) -> np.linalg.norm(A.T @ lam - target) * np.linalg.norm(target)]": (
        "the residual of a solution is rounding, and that of no solution is not small, in either unit"
    ),
    "attention/theory/path.py:_Gap.__init__: self.rows = E[self.columns] - E[self.segments.spread(self.top)]  # (nnz, d): the theory is for small data [drop: E[self.columns] - E[self.segments.spread(self.top)] -> E[self.columns]]": (
        "the weights of a sequence's rows sum to 0, so that what is subtracted from all of them cancels: values and gradients differ by 1e-14 on fifty problems"
    ),
    "losses.py:_exp_increase: return np.where(drop <= 1.0, near, _exp(z - drop) - _exp(z)) [strict: drop <= 1.0 -> drop < 1.0]": (
        "at a drop of exactly 1 both forms are the same to the last digit on a thousand margins"
    ),
    "structured/long_chains.py:ExpEnds._join_forward: weight = np.where(now[:, :b] > 0, log_scale[:, here], -np.inf) [strict: now[:, :b] > 0 -> now[:, :b] >= 0]": (
        "labels without a message have weight 0 either way; on eight chains whose forbidden labels have factors up to e^1000 the marginals differ by one rounding"
    ),
}

"""Chains: a small hidden Markov model, which every package supports, ties, and the likelihood of trained weights."""

from __future__ import annotations

import math
import tempfile
from functools import cache
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.agreement import Problem, Reason, Reasons

START, EMISSIONS = np.array([0.5, 0.3, 0.2]), np.array([[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.25, 0.25, 0.5]])
TRANSITIONS = np.array([[0.7, 0.2, 0.1], [0.2, 0.6, 0.2], [0.1, 0.5, 0.4]])
SYMBOLS = [0, 2, 1, 2, 2]
U, W = np.log(EMISSIONS).T[SYMBOLS], np.log(TRANSITIONS)
K, L = 3, len(SYMBOLS)


def probability(labels: tuple[int, ...]) -> float:
    """P(X, Y), as a product."""
    first = START[labels[0]]
    return first * math.prod(EMISSIONS[k, x] for k, x in zip(labels, SYMBOLS)) * _path(labels)


def _path(labels: tuple[int, ...]) -> float:
    return math.prod(TRANSITIONS[a, b] for a, b in pairwise(labels))


ALL = {labels: probability(labels) for labels in product(range(K), repeat=L)}
LOG_Z = math.log(math.fsum(ALL.values()))
NODE = np.array([[math.fsum(p for y, p in ALL.items() if y[i] == k) for k in range(K)] for i in range(L)])
NODE /= math.fsum(ALL.values())
BEST = max(ALL, key=lambda labels: ALL[labels])
THREE = sorted(ALL, key=lambda labels: -ALL[labels])[:3]


# --- attnembed


def own(what: str) -> Any:
    ends = {"start": np.log(START)}
    if what == "log Z":
        return float(ae.chain_log_partition(U, W, **ends))
    if what == "marginals":
        return ae.chain_marginals(U, W, **ends).node
    if what == "posterior":
        return ae.chain_posterior_decode(U, W, **ends)
    if what == "three best":
        return ae.chain_k_best(U, W, 3, **ends).labels
    return ae.chain_viterbi(U, W, **ends)


# --- pytorch-crf


def torch_crf(unary: np.ndarray, pairwise: np.ndarray, start: np.ndarray) -> tuple[Any, Any, Any]:
    import torch
    from torchcrf import CRF

    layer = CRF(len(pairwise), batch_first=True).double()
    with torch.no_grad():
        layer.transitions.copy_(torch.from_numpy(pairwise))
        layer.start_transitions.copy_(torch.from_numpy(start))
        layer.end_transitions.zero_()
    return torch, layer, torch.from_numpy(unary[None].copy()).requires_grad_()


def torch_log_z(unary: Any, layer: Any, torch: Any) -> Any:
    """log Z = score of a labeling - its log-likelihood; the package shows no normaliser."""
    labels = torch.zeros(1, unary.shape[1], dtype=torch.long)
    score = layer.start_transitions[0] + unary[0, :, 0].sum() + (unary.shape[1] - 1) * layer.transitions[0, 0]
    return score + layer.end_transitions[0] - layer(unary, labels)


def pytorch_crf(what: str) -> Any:
    torch, layer, unary = torch_crf(U, W, np.log(START))
    if what == "viterbi":
        return np.array(layer.decode(unary)[0])
    value = torch_log_z(unary, layer, torch)
    return float(value) if what == "log Z" else torch.autograd.grad(value, unary)[0][0].numpy()


# --- torch-struct


@cache
def torch_struct() -> Any:
    """Its potentials are of (position, label, label before), one matrix per pair of neighbours."""
    import torch
    from torch_struct import LinearChainCRF

    potentials = np.array([W.T + U[i + 1][:, None] for i in range(L - 1)])
    potentials[0] += (np.log(START) + U[0])[None, :]
    return LinearChainCRF(torch.from_numpy(potentials[None]))


def struct(what: str) -> Any:
    chain = torch_struct()
    if what == "log Z":
        return float(chain.partition)
    if what == "marginals":
        pairs = chain.marginals[0].detach()  # (position, label, label before)
        return np.vstack([pairs[0].sum(0)[None], pairs.sum(2)])
    if what == "three best":
        return np.array([chain.struct.from_parts(parts)[0][0].tolist() for parts in chain.topk(3)])
    return chain.struct.from_parts(chain.argmax)[0][0].numpy()


def struct_objective() -> float:
    import torch
    from torch_struct import LinearChainCRF

    total = 0.0
    for x, y in zip(SENTENCES, TAGS):
        unary = trained().state[x]
        potentials = np.array([trained().pairs.T + row[:, None] for row in unary[1:]])
        potentials[0] += unary[0][None, :]
        chain = LinearChainCRF(torch.from_numpy(potentials[None]))
        parts = chain.struct.to_parts(torch.tensor([y]), 2).double()
        total -= float(chain.log_prob(parts))
    return total


# --- hidden Markov models


@cache
def hmmlearn_model() -> Any:
    from hmmlearn.hmm import CategoricalHMM

    model = CategoricalHMM(n_components=K)
    model.startprob_, model.transmat_, model.emissionprob_ = START, TRANSITIONS, EMISSIONS
    model.n_features = EMISSIONS.shape[1]
    return model


def hmmlearn(what: str) -> Any:
    model, x = hmmlearn_model(), np.array(SYMBOLS)[:, None]
    answers = {
        "log Z": lambda: float(model.score(x)),
        "marginals": lambda: model.predict_proba(x),
        "viterbi": lambda: model.decode(x)[1],
        "posterior": lambda: model.decode(x, algorithm="map")[1],
        "value of map": lambda: float(model.decode(x, algorithm="map")[0]),
    }
    return answers[what]()


def nltk(what: str) -> Any:
    from nltk.probability import DictionaryConditionalProbDist, DictionaryProbDist
    from nltk.tag.hmm import HiddenMarkovModelTagger

    def rows(matrix: np.ndarray) -> Any:
        return DictionaryConditionalProbDist(
            {k: DictionaryProbDist(dict(enumerate(row))) for k, row in enumerate(matrix)}
        )

    states = list(range(K))
    prior = DictionaryProbDist(dict(enumerate(START)))
    tagger = HiddenMarkovModelTagger(states, states, rows(TRANSITIONS), rows(EMISSIONS), prior)
    if what == "log Z":
        return float(tagger.log_probability([(x, None) for x in SYMBOLS]))
    return np.array(tagger.best_path(SYMBOLS))


# --- label 0 comes first, and 2 never follows it

FIRST, FOLLOWS = np.array([1.0, 0.0, 0.0]), np.array([[0.75, 0.25, 0.0], *TRANSITIONS[1:]])
with np.errstate(divide="ignore"):
    LOG_FIRST, LOG_FOLLOWS = np.log(FIRST), np.log(FOLLOWS)


def forced_marginals() -> np.ndarray:
    """By enumeration."""
    node = np.zeros((L, K))
    for labels in product(range(K), repeat=L):
        steps = math.prod(FOLLOWS[a, b] for a, b in pairwise(labels))
        node[range(L), labels] += FIRST[labels[0]] * steps * math.prod(EMISSIONS[k, x] for k, x in zip(labels, SYMBOLS))
    return node / node[0].sum()


def torch_forced() -> Any:
    torch, layer, unary = torch_crf(U, LOG_FOLLOWS, LOG_FIRST)
    return torch.autograd.grad(torch_log_z(unary, layer, torch), unary)[0][0].numpy()


def struct_forced() -> Any:
    import torch
    from torch_struct import LinearChainCRF

    potentials = np.array([LOG_FOLLOWS.T + U[i + 1][:, None] for i in range(L - 1)])
    potentials[0] += (LOG_FIRST + U[0])[None, :]
    pairs = LinearChainCRF(torch.from_numpy(potentials[None])).marginals[0].detach()
    return np.vstack([pairs[0].sum(0)[None], pairs.sum(2)])


def hmmlearn_forced() -> Any:
    from hmmlearn.hmm import CategoricalHMM

    model = CategoricalHMM(n_components=K)
    model.startprob_, model.transmat_, model.emissionprob_ = FIRST, FOLLOWS, EMISSIONS
    model.n_features = EMISSIONS.shape[1]
    return model.predict_proba(np.array(SYMBOLS)[:, None])


# --- ties: all labelings have one score


def hmmlearn_ties() -> Any:
    from hmmlearn.hmm import CategoricalHMM

    model = CategoricalHMM(n_components=K)
    model.startprob_, model.transmat_, model.emissionprob_ = np.full(K, 1 / K), np.full((K, K), 1 / K), np.ones((K, 1))
    model.n_features = 1
    return model.decode(np.zeros((L, 1), dtype=int))[1]


def torch_ties() -> Any:
    _, layer, unary = torch_crf(np.zeros((L, K)), np.zeros((K, K)), np.zeros(K))
    return np.array(layer.decode(unary)[0])


def struct_ties() -> Any:
    import torch
    from torch_struct import LinearChainCRF

    chain = LinearChainCRF(torch.zeros(1, L - 1, K, K))
    return chain.struct.from_parts(chain.argmax)[0][0].numpy()


def nltk_ties() -> Any:
    from nltk.probability import DictionaryConditionalProbDist, DictionaryProbDist
    from nltk.tag.hmm import HiddenMarkovModelTagger

    states, flat = list(range(K)), DictionaryProbDist(dict.fromkeys(range(K), 1 / K))
    table = DictionaryConditionalProbDist(dict.fromkeys(states, flat))
    return np.array(HiddenMarkovModelTagger(states, states, table, table, flat).best_path([0] * L))


# --- the objective at trained weights

SENTENCES = [[0, 1, 2], [2, 2], [1, 0, 0, 2], [0, 1]]
TAGS = [[0, 1, 1], [1, 1], [0, 0, 1, 1], [0, 1]]


class Trained:
    """A CRFsuite model of the sentences above."""

    def __init__(self) -> None:
        import pycrfsuite

        from benchmarks.crfsuite_file import read_weights

        trainer = pycrfsuite.Trainer(verbose=False)
        for x, y in zip(SENTENCES, TAGS):
            trainer.append([[f"w{i}"] for i in x], [f"y{k}" for k in y])
        trainer.set_params({"feature.possible_states": True, "feature.possible_transitions": True})
        self.tagger = pycrfsuite.Tagger()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "model")
            trainer.train(str(file))
            self.tagger.open(str(file))
            weights = read_weights(file, self.tagger)
        attributes = [weights.attributes.index(f"w{i}") for i in range(3)]
        labels = [weights.labels.index(f"y{k}") for k in range(2)]
        self.state, self.pairs = weights.state[np.ix_(attributes, labels)], weights.transitions[np.ix_(labels, labels)]

    def rounded(self) -> tuple[np.ndarray, np.ndarray]:
        info = self.tagger.info()
        state = np.array([[info.state_features.get((f"w{i}", f"y{k}"), 0.0) for k in range(2)] for i in range(3)])
        return state, np.array([[info.transitions.get((f"y{a}", f"y{b}"), 0.0) for b in range(2)] for a in range(2)])


@cache
def trained() -> Trained:
    return Trained()


def enumerated(state: np.ndarray, pairs: np.ndarray) -> float:
    """-sum log P(Y|X), with Z as a sum over all labelings."""
    total = 0.0
    for x, y in zip(SENTENCES, TAGS):
        scores = {
            labels: sum(state[i, k] for i, k in zip(x, labels)) + sum(pairs[a, b] for a, b in pairwise(labels))
            for labels in product(range(2), repeat=len(x))
        }
        total += math.log(math.fsum(math.exp(score) for score in scores.values())) - scores[tuple(y)]
    return total


def from_right(answer: Any) -> Any:
    """The answer as a difference from enumeration at the same weights."""
    return lambda: answer() - enumerated(trained().state, trained().pairs)


def own_objective() -> float:
    model = ae.ChainCRF.from_arrays(trained().pairs, weights=trained().state, indicators=True)
    data = ae.ChainDataset([np.array(x)[:, None] for x in SENTENCES], TAGS)
    return model.loss(data) * len(data)


def crfsuite_objective() -> float:
    tagger, total = trained().tagger, 0.0
    for x, y in zip(SENTENCES, TAGS):
        tagger.set([[f"w{i}"] for i in x])
        total -= math.log(tagger.probability([f"y{k}" for k in y]))
    return total


def torch_objective() -> float:
    total = 0.0
    for x, y in zip(SENTENCES, TAGS):
        torch, layer, unary = torch_crf(trained().state[x], trained().pairs, np.zeros(2))
        total -= float(layer(unary, torch.tensor([y])))
    return total


TIE = "Viterbi, all scores equal"
OBJECTIVE = "-log likelihood at CRFsuite's trained weights, less that by enumeration"
POSTERIOR = "most probable label at each position"
VALUE = "value returned with those labels"
FORCED = "node marginals, label 0 first and never 2 after it"

PROBLEMS = [
    Problem(
        "log Z of an HMM, 3 states, 5 symbols",
        LOG_Z,
        "enumeration",
        {
            "attnembed": lambda: own("log Z"),
            "pytorch-crf": lambda: pytorch_crf("log Z"),
            "hmmlearn": lambda: hmmlearn("log Z"),
            "nltk": lambda: nltk("log Z"),
            "torch-struct": lambda: struct("log Z"),
        },
        tolerance=1e-10,
    ),
    Problem(
        "node marginals of the HMM",
        NODE,
        "enumeration",
        {
            "attnembed": lambda: own("marginals"),
            "pytorch-crf, gradient of log Z": lambda: pytorch_crf("marginals"),
            "hmmlearn": lambda: hmmlearn("marginals"),
            "torch-struct": lambda: struct("marginals"),
        },
        tolerance=1e-10,
    ),
    Problem(
        "best labeling of the HMM",
        np.array(BEST),
        "enumeration",
        {
            "attnembed": lambda: own("viterbi"),
            "pytorch-crf": lambda: pytorch_crf("viterbi"),
            "hmmlearn": lambda: hmmlearn("viterbi"),
            "nltk": lambda: nltk("viterbi"),
            "torch-struct": lambda: struct("viterbi"),
        },
    ),
    Problem(
        "the three best labelings of the HMM",
        np.array(THREE),
        "enumeration",
        {"attnembed": lambda: own("three best"), "torch-struct": lambda: struct("three best")},
    ),
    Problem(
        FORCED,
        forced_marginals(),
        "enumeration",
        {
            "attnembed": lambda: ae.chain_marginals(U, LOG_FOLLOWS, start=LOG_FIRST).node,
            "pytorch-crf, gradient of log Z": torch_forced,
            "hmmlearn": hmmlearn_forced,
            "torch-struct": struct_forced,
        },
        tolerance=1e-10,
    ),
    Problem(
        POSTERIOR,
        NODE.argmax(axis=1),
        "enumeration",
        {
            "attnembed": lambda: own("posterior"),
            "hmmlearn": lambda: hmmlearn("posterior"),
            "pytorch-crf, largest marginal": lambda: pytorch_crf("marginals").argmax(axis=1),
            "torch-struct, largest marginal": lambda: struct("marginals").argmax(axis=1),
        },
    ),
    Problem(
        VALUE,
        sum(math.log(row.max()) for row in NODE),
        "sum of log marginals, by enumeration",
        {"hmmlearn": lambda: hmmlearn("value of map")},
    ),
    Problem(
        TIE,
        np.zeros(L, dtype=int),
        "smallest label first",
        {
            "attnembed": lambda: ae.chain_viterbi(np.zeros((L, K)), np.zeros((K, K))),
            "pytorch-crf": torch_ties,
            "hmmlearn": hmmlearn_ties,
            "nltk": nltk_ties,
            "torch-struct": struct_ties,
        },
    ),
    Problem(
        OBJECTIVE,
        0.0,
        "enumeration",
        {
            "attnembed": from_right(own_objective),
            "python-crfsuite": from_right(crfsuite_objective),
            "python-crfsuite, weights of info()": from_right(lambda: enumerated(*trained().rounded())),
            "pytorch-crf": from_right(torch_objective),
            "torch-struct": from_right(struct_objective),
        },
        tolerance=1e-10,
    ),
]

REASONS: Reasons = {
    ("log Z of an HMM, 3 states, 5 symbols", "nltk"): Reason(
        "log_probability is a logarithm to base 2", "multiply by log 2"
    ),
    (FORCED, "pytorch-crf, gradient of log Z"): Reason(
        "label 2 cannot be second: its log-sum-exp is of -inf alone, where autograd gives NaN; the value is right",
        "write -1e4 for forbidden pairs there; `allowed` or -inf here",
    ),
    (VALUE, "hmmlearn"): Reason(
        'with algorithm="map" decode returns the sum of the marginals themselves, which is no logarithm and positive',
        "sum the logarithms of predict_proba, or take score for log P(X)",
    ),
    (TIE, "hmmlearn"): Reason(
        "of equal predecessors it keeps the last, and of equal last states the first; here the first label wins, from "
        "the last position backwards",
        "compare scores, not labelings, where scores tie",
    ),
    (OBJECTIVE, "python-crfsuite, weights of info()"): Reason(
        "info() reads a text dump with six decimals", "read the file itself: benchmarks/crfsuite_file.py"
    ),
}

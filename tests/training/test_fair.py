"""The game of FAIR against a plain loop with the same noise, on every kind of measurement."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from causal_sgd import random, training
from causal_sgd.supervised import estimators, measurements, metrics, models, worlds
from causal_sgd.training import algorithms, samplers

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key(5)
PARTS: dict[str, Any] = {
    "world": worlds.contradiction(biases=np.array([1.5, -0.5, 0.7])),
    "sampler": samplers.pooled(batch_size=30),
    "measurement": measurements.moments(100),
    "model": models.gated(dim=2, intercept=True, init="uniform", init_logit=0.3),
    "weight": 5.0,
    "optimizer": optax.sgd(0.2),
    "critic_optimizer": optax.sgd(0.3),
    "gate_optimizer": optax.sgd(0.4),
    "adversary_steps": 2,
    "temperature": lambda step: 2.0 - 0.1 * step,
}


RATE, DECAY = 0.05, 0.3
SOURCE: dict[str, Any] = {  # of half the source's objective
    "sampler": samplers.stratified(batch_size=30),
    "optimizer": optax.chain(optax.add_decayed_weights(DECAY / 2), optax.adam(RATE)),
    "critic_optimizer": None,
    "gate_optimizer": optax.adam(RATE),
    "adversary_steps": 3,
}


@functools.cache
def program(measurement: Any = None, source: bool = False) -> Any:
    """A number of steps -> the last state, compiled once."""
    changes = {} if measurement is None else {"measurement": measurement}
    method = algorithms.fair(**PARTS | changes | (SOURCE if source else {}))

    @jax.jit
    def last(steps: jax.Array) -> Any:
        step = functools.partial(method.step, KEY)
        return jax.lax.fori_loop(0, steps, lambda _, before: step(before), method.init(KEY))

    return last


class Plain:
    """The source's game, divided by 2, on moments of (x, y, 1), step by step in NumPy."""

    def __init__(self, start: Any, weight: float = 5.0) -> None:
        self.second = np.asarray(start.data.training.second, float)
        self.predictor = self.vector(start.params)
        self.logits = np.asarray(start.params["logits"], float)
        self.critics = self.rows(start.critics)
        self.weight = weight

    @staticmethod
    def vector(params: Any) -> np.ndarray:
        return np.append(np.asarray(params["weights"], float), float(params["intercept"]))

    @staticmethod
    def rows(critics: Any) -> np.ndarray:
        return np.column_stack([critics["weights"], critics["intercept"]]).astype(float)

    def draw(self, index: int, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """The gates, with a one for the intercept, and the shares of the environments."""
        order = random.fold_in(algorithms.stream(KEY, "environments"), index)
        batch, _ = PARTS["sampler"].draw(order, jnp.asarray(index), jnp.full(3, 1 / 3))
        gates = 1 / (1 + np.exp(-(self.logits + self.noise(index)) / temperature))
        return np.append(gates, 1.0), np.asarray(batch.counts) / 30

    @staticmethod
    def noise(index: int) -> np.ndarray:
        """Of the gates, standard logistic."""
        words = random.bits(random.fold_in(algorithms.stream(KEY, "gates"), index), 2)
        level = np.asarray(random.uniforms(words, float), float) + 2.0**-24
        return np.log(level / (1 - level))

    def pieces(self, environment: int) -> tuple[np.ndarray, np.ndarray]:
        """E (x, 1)(x, 1)' and E (x, 1) y."""
        second, keep = self.second[environment], [0, 1, 3]
        return second[np.ix_(keep, keep)], second[keep, 2]

    def attack(self, index: int, temperature: float, rate: float) -> None:
        gates, shares = self.draw(index, temperature)
        for e in range(3):
            inputs, cross = self.pieces(e)
            # d/df of E[(y - g) f - f^2 / 2] / 2, ascended
            slope = gates * (cross - inputs @ (gates * (self.predictor + self.critics[e]))) / 2
            self.critics[e] += rate * shares[e] * slope

    def update(self, index: int, temperature: float, rates: tuple[float, float]) -> float:
        gates, shares = self.draw(index, temperature)
        slope, tilt, value = np.zeros(3), np.zeros(3), 0.0
        for e in range(3):
            inputs, cross = self.pieces(e)
            g, f = gates * self.predictor, gates * self.critics[e]
            square = self.second[e][2, 2] - 2 * cross @ g + g @ inputs @ g
            gain = cross @ f - g @ inputs @ f - f @ inputs @ f / 2
            value += shares[e] * (square / 2 + self.weight * gain) / 2
            along_g = inputs @ g - cross - self.weight * inputs @ f
            along_f = self.weight * (cross - inputs @ g - inputs @ f)
            slope += shares[e] * gates * along_g / 2
            tilt += shares[e] * (self.predictor * along_g + self.critics[e] * along_f) / 2
        self.predictor = self.predictor - rates[0] * slope
        change = gates * (1 - gates) / temperature
        self.logits = self.logits - rates[1] * (tilt * change)[:2]
        return value


@pytest.mark.slow
def test_every_gradient_is_that_of_a_plain_loop() -> None:
    steps, plain = 6, Plain(program()(0))
    value = np.nan
    for step in range(steps):
        temperature = 2 - 0.1 * step
        for place in range(2):
            plain.attack(3 * step + place, temperature, 0.3)
        value = plain.update(3 * step + 2, temperature, (0.2, 0.4))
    found = program()(steps)
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)
    close(Plain.vector(found.params), plain.predictor)
    close(found.params["logits"], plain.logits)
    close(Plain.rows(found.critics), plain.critics)
    close(found.loss, value)


class Adam:
    """Adam as PyTorch writes it: the decay is part of the gradient."""

    def __init__(self, values: np.ndarray, decay: float = 0.0) -> None:
        self.values, self.decay = values.astype(float), decay
        self.first, self.second, self.count = np.zeros_like(values), np.zeros_like(values), 0

    def step(self, slope: Any) -> None:
        slope = np.asarray(slope, float) + self.decay * self.values
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * slope
        self.second = 0.999 * self.second + 0.001 * slope**2
        size = np.sqrt(self.second / (1 - 0.999**self.count)) + 1e-8
        self.values = self.values - RATE * self.first / (1 - 0.9**self.count) / size


@pytest.mark.slow
def test_rounds_are_those_of_the_source_on_examples() -> None:
    """Three updates of the critics and one of the predictor and the gates, from rows (x, y)."""
    run = program(measurements.examples(40, full=True), source=True)
    start, rounds = run(0), 2
    plain = Plain(start)
    rows = start.data.rows
    x, y = (jnp.asarray(part) for part in (rows.inputs, rows.labels))
    predictor = Adam(plain.predictor, DECAY)
    critics = Adam(plain.critics, DECAY)
    logits = Adam(plain.logits)

    def pieces(g: Any, f: Any, gates: Any) -> tuple[Any, Any]:
        out_g = jnp.einsum("enp,p->en", x, gates * g[:2]) + g[2]
        out_f = jnp.einsum("enp,ep->en", x, gates[None] * f[:, :2]) + f[:, 2:]
        return jnp.mean((y - out_g) ** 2), jnp.mean((y - out_g) * out_f - out_f**2 / 2)

    def attack(f: Any, g: Any, gates: Any) -> Any:
        return -pieces(g, f, gates)[1]

    def objective(g: Any, logits: Any, f: Any, noise: Any, temperature: float) -> Any:
        risk, gain = pieces(g, f, jax.nn.sigmoid((logits + noise) / temperature))
        return risk / 2 + PARTS["weight"] * gain

    value = np.nan
    for step in range(rounds):
        temperature = 2 - 0.1 * step
        for place in range(3):
            plain.logits = logits.values
            gates = plain.draw(4 * step + place, temperature)[0][:2]
            critics.step(jax.grad(attack)(critics.values, predictor.values, gates))
        noise = plain.noise(4 * step + 3)
        seen = predictor.values, logits.values, critics.values, noise, temperature
        value, slopes = jax.value_and_grad(objective, (0, 1))(*seen)
        predictor.step(slopes[0])
        logits.step(slopes[1])
    found = run(rounds)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(Plain.vector(found.params), predictor.values)
    close(found.params["logits"], logits.values)
    close(Plain.rows(found.critics), critics.values)
    close(2 * found.loss, value)


@pytest.mark.slow
def test_moments_play_as_all_their_examples_do() -> None:
    whole = measurements.examples(40, full=True)
    found = program(whole)(4)
    data = found.data._replace(rows=None)
    law = measurements.moments()._replace(init=lambda key, world: data)
    expected = program(law)(4)
    for one, other in ((found.params, expected.params), (found.critics, expected.critics)):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one, other
        )


@pytest.mark.slow
def test_gates_close_beyond_the_threshold_of_the_weight() -> None:
    """The threshold is mu^2 / M^2 = 1 in the contradiction world."""
    factory = worlds.contradiction(mean=0.8, spread=0.8, variance=4.0)

    def run(weight: jax.Array) -> Any:
        method = algorithms.fair(
            world=factory,
            sampler=samplers.stratified(batch_size=100),
            measurement=measurements.moments(),
            model=models.gated(dim=2),
            weight=weight,
            optimizer=optax.adam(0.01),
            temperature=optax.exponential_decay(5.0, 100, 0.9, staircase=True, end_value=0.1),
        )
        seen = [metrics.gates, metrics.weights]
        return training.run(KEY, algorithm=method, metrics=seen, num_steps=6000, record_every=6000)

    trace = jax.jit(jax.vmap(run))(jnp.array([0.3, 30.0]))
    gates, weights = trace.metrics["gates"][:, -1], trace.metrics["weights"][:, -1]
    assert (trace.diverged_at == -1).all()
    np.testing.assert_array_equal(gates > 0.7, [[True, True], [True, False]])
    assert gates[1, 1] < 0.1
    expected = np.array([(1.0, 0.2), (1.0, 0.0)])
    np.testing.assert_allclose(weights, expected, atol=0.1)
    world = jax.jit(factory)(KEY)
    data = measurements.moments().init(KEY, world)
    for place in range(2):
        fit = estimators.within(gates[place] > 0.7)(data, world)
        np.testing.assert_allclose(fit.estimate, expected[place], atol=1e-5)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"model": models.linear(dim=2)}, "model must have gates"),
        ({"measurement": measurements.quadrature()}, "measurement must have squared losses"),
        ({"temperature": 0.0}, "temperature must be"),
    ],
)
def test_wrong_parts_are_refused(part: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        algorithms.fair(**PARTS | part)


def test_chosen_inputs_are_truth_values() -> None:
    with pytest.raises(ValueError, match="chosen must be truth values"):
        estimators.within(np.array([0, 1]))

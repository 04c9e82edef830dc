"""The machine as matter: phases of φ⁴ machines, and transitions in training.

Left, machines of one pattern: the weight scale at which their mode condenses, by
mean field and from crossings of U4. Right, three machines that learn digits: the
singular values of their weights cross the critical value one after the other.
"""

import os

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from phi4ppl.networks import (
    BernoulliUnits,
    Phi4Units,
    RestrictedBoltzmannMachine,
    critical_scale,
    phases,
    train,
)

tiny = os.environ.get("PHI4PPL_TINY") == "1"
sizes, quartics = ((4, 8), (0.5,)) if tiny else ((12, 24, 48), (0.1, 0.5, 2.0))
draws, epochs, every, rows = (100, 5, 2, 200) if tiny else (800, 49, 6, 1797)
quick = {"annealing_steps": 0, "sweeps": 0}


def one_pattern(size, quartic):
    """φ⁴ units with a = −1/2 and w_ij = ξ_i ζ_j/N."""
    xi, zeta = np.random.default_rng(size).choice([-1.0, 1.0], (2, size))
    w = np.outer(xi, zeta) / size
    units = Phi4Units(np.zeros(size), np.full(size, -0.5), np.full(size, quartic))
    return RestrictedBoltzmannMachine(units, units, w)


def transition(quartic):
    """The critical scale of the weights from curves of U4."""
    critical = critical_scale(one_pattern(4, quartic))

    def near(n):  # a window that shrinks with the size
        return critical * (1 + np.linspace(-1, 1.4, 5) / np.sqrt(n))

    def family(n):
        return one_pattern(n, quartic)

    found = phases(
        family,
        {"weights": near},
        sizes=sizes,
        num_modes=1,
        num_samples=draws,
        **quick,
    )
    print(f"b = {quartic}, mean field {critical:.4f}: {found.transition}")
    return found.transition


def learn(binary_visible, binary_hidden, rate):
    """Digits, learned by a machine of 16 hidden units; its history and phases."""
    data = load_digits().data[:rows] / 16
    share = np.clip(data.mean(axis=0), 0.01, 0.99)
    layers = [
        Phi4Units(np.zeros(n), np.full(n, 0.4), np.full(n, 0.02)) for n in (64, 16)
    ]
    if binary_visible:
        layers[0] = BernoulliUnits(np.log(1 / share - 1))
    else:
        data = (data - data.mean(axis=0)) / (data.std(axis=0) + 0.1)
    if binary_hidden:
        layers[1] = BernoulliUnits(np.zeros(16))
    weights = np.random.default_rng(0).normal(0, 0.005, (64, 16))
    states = []
    _, history = train(
        RestrictedBoltzmannMachine(*layers, weights),
        data,
        epochs=epochs,
        learning_rate=rate,
        on_epoch=lambda record, state: states.append(state),
    )
    number = max(100, draws // 4)
    return history, phases(states[::every], data=data, num_samples=number, **quick)


points = [transition(quartic) for quartic in quartics]
machines = {
    "φ⁴–φ⁴": learn(False, False, 1e-3),
    "φ⁴–Bernoulli": learn(False, True, 6e-4),
    "Bernoulli–Bernoulli": learn(True, True, 2e-3),
}

figure = Figure(figsize=(13, 5.5), layout="constrained")
grid = figure.add_gridspec(2, 5)
axes = figure.add_subplot(grid[:, :2])
b = np.geomspace(0.05, 4, 60)
line = np.array([critical_scale(one_pattern(2, value)) for value in b])
top = 1.2 * line.max()
axes.plot(b, line, color="k", label="mean field, exact for many units")
values, errors = np.array([[each.value, each.error] for each in points]).T
axes.errorbar(quartics, values, 2 * errors, fmt="o", label="curves of $U_4$")
axes.fill_between(b, line, top, alpha=0.15)
axes.set(xscale="log", xlabel="quartic coupling b", ylabel="weight scale s")
axes.set_ylim(0, top)
axes.text(0.07, 0.7 * top, "condensed: ⟨|m|⟩ > 0")
axes.text(0.5, 0.15 * top, "symmetric: m = 0")
axes.legend(loc="upper left", frameon=False)
for column, (name, (history, found)) in enumerate(machines.items(), start=2):
    above, below = (figure.add_subplot(grid[row, column]) for row in range(2))
    data, epoch = found.data.isel(size=0), found.data["epoch"].values[0]
    for mode in range(3):
        chosen = data.isel(mode=mode)
        above.plot(epoch, chosen["strength"], marker=".", label=f"mode {mode + 1}")
        chi = chosen["susceptibility"], chosen["susceptibility_error"]
        below.errorbar(epoch, *chi, marker=".", lw=1)
    above.plot([each.strength for each in history], color="0.7", lw=0.7)
    above.axhline(1, color="k", lw=0.7)
    for step in found.cascade:
        for each in (above, below):
            each.axvline(step.value, color=f"C{step.mode - 1}", ls=":")
    above.set_title(name)
    below.set_xlabel("epoch")
    if column == 2:
        above.set_ylabel("singular values")
        below.set_ylabel("susceptibility")
    print(f"{name}: {found}")
above.legend(frameon=False)
figure.savefig("machine_as_matter.png", dpi=100)

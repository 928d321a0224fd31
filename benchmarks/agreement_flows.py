"""y' = 1 / (1 + e^y) from y = 0, whose solution y + e^y = 1 + t grows like log t: to t = 1e8, e^60 and 1e300.

Every integrator runs at rtol 1e-8 and atol 1e-10, in t itself, as a user would pass the problem.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, getcontext
from typing import Any

import numpy as np

import attnembed as ae
from benchmarks.agreement import Problem, Reason, Reasons

RTOL, ATOL, MOST = 1e-8, 1e-10, 20_000


def right(end: Decimal) -> float:
    """y, the fixed point of y = log(1 + t - y), in 340 digits, which hold 1 + t exactly."""
    getcontext().prec = 340
    y = (1 + end).ln()
    for _ in range(60 if end < 1e10 else 3):
        y = (1 + end - y).ln()
    return float(y)


def rate(y: Any) -> Any:
    return np.exp(-y) / (1 + np.exp(-y))


def own(end: float) -> Any:
    flow = ae.integrate(rate, [0.0], until=float(np.log(end)), rtol=RTOL, atol=ATOL)
    return float(flow.p[0]) if flow.success else flow.status.value


def scipy(end: float, method: str) -> Any:
    from scipy.integrate import solve_ivp

    count = [0]

    def limited(t: float, y: Any) -> Any:
        count[0] += 1
        if count[0] > MOST:
            raise RuntimeError
        return rate(y)

    try:
        found = solve_ivp(limited, (0.0, end), [0.0], method=method, rtol=RTOL, atol=ATOL, t_eval=[end])
    except RuntimeError:
        return f"no end after {MOST} evaluations"
    return float(found.y[0, -1]) if found.success else found.message


def diffrax(end: float, solver: str) -> Any:
    import diffrax as dfx
    import jax

    jax.config.update("jax_enable_x64", True)
    found = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, y, _: jax.nn.sigmoid(-y)),
        getattr(dfx, solver)(),
        t0=0.0,
        t1=end,
        dt0=1e-2,
        y0=jax.numpy.zeros(1),
        stepsize_controller=dfx.PIDController(rtol=RTOL, atol=ATOL),
        max_steps=MOST,
        throw=False,
    )
    successful = found.result == dfx.RESULTS.successful
    return float(found.ys[-1][0]) if successful else f"no end after {MOST} steps"


def torchdiffeq(end: float) -> Any:
    import torch
    import torchdiffeq as tde

    times, start = torch.tensor([0.0, end], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    options = {"max_num_steps": MOST}
    try:
        path = tde.odeint(lambda t, y: torch.sigmoid(-y), start, times, rtol=RTOL, atol=ATOL, options=options)
    except AssertionError as error:
        return f"raises AssertionError: {str(error)[:40]}"
    return float(path[-1])


def sundae(end: float) -> Any:
    """CVODE, the implicit solver of SUNDIALS."""
    from sksundae.cvode import CVODE

    def derivative(t: float, y: Any, out: Any) -> None:
        out[:] = rate(y)

    found = CVODE(derivative, rtol=RTOL, atol=ATOL, max_num_steps=MOST).solve(np.array([0.0, end]), np.zeros(1))
    return float(found.y[-1, 0]) if found.success else found.message


INTEGRATORS: dict[str, Callable[[float], Any]] = {
    "attnembed": own,
    "scipy, RK45": lambda end: scipy(end, "RK45"),
    "scipy, DOP853": lambda end: scipy(end, "DOP853"),
    "scipy, LSODA": lambda end: scipy(end, "LSODA"),
    "scipy, BDF": lambda end: scipy(end, "BDF"),
    "scipy, Radau": lambda end: scipy(end, "Radau"),
    "diffrax, Kvaerno5": lambda end: diffrax(end, "Kvaerno5"),
    "diffrax, Tsit5": lambda end: diffrax(end, "Tsit5"),
    "torchdiffeq, dopri5": torchdiffeq,
    "scikit-sundae, CVODE": sundae,
}
ENDS = {"t = 1e8": 1e8, "log t = 60": float(np.exp(60.0)), "t = 1e300": 1e300}

PROBLEMS = [
    Problem(
        name,
        right(Decimal(end)),
        "decimals",
        {package: lambda solve=solve, end=end: solve(end) for package, solve in INTEGRATORS.items()},
        tolerance=1e-6,
    )
    for name, end in ENDS.items()
]

LATE = "t = 1e300"
SLOW = Reason(
    "an implicit method in t makes many steps per decade of t, and is stopped here after 20,000 evaluations; with "
    "100,000 it arrives, and its answer is right",
    "substitute s = log(1 + t), which makes the flow slow and smooth",
)
REASONS: Reasons = {
    (LATE, "scipy, DOP853"): Reason(
        "below derivatives of 1e-162 its error estimate underflows to 0 and every step grows tenfold; success is True",
        "use RK45, or substitute s = log(1 + t)",
    ),
    (LATE, "scikit-sundae, CVODE"): Reason(
        "its first step is chosen by the length of the interval, 8e132, where its corrector fails; success is False",
        "pass first_step, or substitute s = log(1 + t)",
    ),
    **{(LATE, f"scipy, {method}"): SLOW for method in ("LSODA", "BDF", "Radau")},
}

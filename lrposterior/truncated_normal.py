"""Draws of a Normal distribution within half spaces, by Hamiltonian dynamics that is solved exactly.

With x ~ Normal(0, 1) in as many dimensions, a particle moves on x sin t + v cos t until it meets a wall, where its
velocity is mirrored (Pakman and Paninski 2014, doi:10.1080/10618600.2013.788448).
"""

from __future__ import annotations

import numpy as np

TRAVEL = 0.5 * np.pi


def truncated_normal(
    walls: np.ndarray, offsets: np.ndarray, start: np.ndarray, num_draws: int, random: np.random.Generator
) -> np.ndarray:
    """(draw, dimension) successive draws of x ~ Normal(0, 1) with walls @ x + offsets >= 0.

    Args:
        walls: (wall, dimension).
        offsets: (wall,).
        start: (dimension,) a point inside.
        num_draws: how many; each depends on the one before.
        random: where velocities come from.
    """
    gram, draws, x = walls @ walls.T, np.empty((num_draws, len(start))), start
    power = np.diag(gram)
    for index in range(num_draws):
        velocity, left = random.standard_normal(len(x)), TRAVEL
        of_velocity, of_x, last = walls @ velocity, walls @ x, -1
        while True:
            radius = np.hypot(of_velocity, of_x)
            ratio = np.divide(-offsets, radius, out=np.full_like(radius, -2.0), where=radius > 0.0)
            meets = np.abs(ratio) < 1.0
            time = np.full(radius.shape, np.inf)
            angle = np.arctan2(of_velocity[meets], of_x[meets])
            time[meets] = np.mod(angle + np.arccos(ratio[meets]), 2.0 * np.pi)
            if last >= 0 and (time[last] < 1e-9 or time[last] > 2.0 * np.pi - 1e-9):
                time[last] = np.inf
            wall = int(np.argmin(time))
            moved = min(time[wall], left)
            sine, cosine = np.sin(moved), np.cos(moved)
            x, velocity = velocity * sine + x * cosine, velocity * cosine - x * sine
            of_x, of_velocity = of_velocity * sine + of_x * cosine, of_velocity * cosine - of_x * sine
            left -= moved
            if left <= 0.0:
                break
            bounce = 2.0 * of_velocity[wall] / power[wall]
            velocity, of_velocity, last = velocity - bounce * walls[wall], of_velocity - bounce * gram[wall], wall
        draws[index] = x
    return draws

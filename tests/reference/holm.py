"""Holm's adjusted p as a closed test: a hypothesis falls if every set of hypotheses with it in falls to Bonferroni."""

from itertools import combinations


def adjusted(p_values):
    indices = range(len(p_values))
    sets = [chosen for size in range(1, len(p_values) + 1) for chosen in combinations(indices, size)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(p_values[k] for k in chosen)) for chosen in sets}
    return [max(p for chosen, p in bonferroni.items() if index in chosen) for index in indices]

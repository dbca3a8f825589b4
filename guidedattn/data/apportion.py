"""Share out whole components among the splits, near to the fractions in every cell."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from guidedattn.data.patients import Component

Key = tuple[str, str]


def apportion(components: Sequence[Component], shares: Mapping[str, float]) -> list[str]:
    """Choose a split for each component; one that has a split keeps it.

    Components are taken in their order, but first the ones that would overfill the smallest split and
    last the single images, which even out what the others leave. Each goes to the split that then lies
    nearest to its share, summed over the cells (source x class) of the component and over its classes, so
    that many small cells do not all round the same way. At last a class that is absent from a split is
    moved in from one that can spare it.

    Args:
        components: Whole patients, in the order that the seed gives.
        shares: The share of each split.

    Returns:
        The split of each component.
    """
    share = {split: fraction for split, fraction in shares.items() if fraction > 0}
    weights = [_weights(component) for component in components]
    total: Counter[Key] = Counter()
    for its in weights:
        total.update(its)
    held: dict[str, Counter[Key]] = {split: Counter() for split in shares}
    chosen = {i: component.split for i, component in enumerate(components) if component.split}
    for i, split in chosen.items():
        held[split].update(weights[i])

    def is_large(i: int) -> bool:
        limit = min(share.values())
        return any(count > max(1.0, limit * total[key]) for key, count in components[i].cells.items())

    free = [i for i in range(len(components)) if i not in chosen]
    for i in sorted(free, key=lambda i: (not is_large(i), len(components[i].members) == 1, i)):
        chosen[i] = max(share, key=lambda split: _gain(weights[i], share[split], total, held[split]))
        held[chosen[i]].update(weights[i])
    _fill_gaps(components, free, chosen, list(share))
    return [chosen[i] for i in range(len(components))]


def _weights(component: Component) -> Counter[Key]:
    """Records of a component per cell, and per class over all sources."""
    weights: Counter[Key] = Counter(component.cells)
    for (_, name), count in component.cells.items():
        weights["", name] += count
    return weights


def _gain(weights: Counter[Key], share: float, total: Counter[Key], held: Counter[Key]) -> float:
    """How much nearer to its shares a split comes, in squared records relative to the size of the cell."""
    return sum(
        count * (2 * (share * total[key] - held[key]) - count) / total[key] for key, count in weights.items()
    )


def _fill_gaps(
    components: Sequence[Component], free: Sequence[int], chosen: dict[int, str], splits: Sequence[str]
) -> None:
    """Move single components so that each class occurs in each split, where there are enough of them."""
    held: dict[str, Counter[str]] = defaultdict(Counter)
    for i, split in chosen.items():
        held[split].update(components[i].classes)
    for name in sorted({name for component in components for name in component.classes}):
        for split in splits:
            if held[split][name]:
                continue
            spare = [
                i
                for i in free
                if name in components[i].classes
                and all(held[chosen[i]][other] > 1 for other in components[i].classes)
            ]
            if spare:
                moved = min(spare, key=lambda i: (len(components[i].members), i))
                held[chosen[moved]].subtract(components[moved].classes)
                held[split].update(components[moved].classes)
                chosen[moved] = split

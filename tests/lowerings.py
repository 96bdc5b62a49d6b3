"""The lowerings of other platforms, computed on this one."""

from jax import lax


def lower_as_for(monkeypatch, platform):
    """Computes here with the lowerings of another platform."""

    def chosen(*arguments, default, **ways):
        return ways.get(platform, default)(*arguments)

    monkeypatch.setattr(lax, "platform_dependent", chosen)

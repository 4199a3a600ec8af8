"""`proxy-rlhf evaluate`."""


def evaluate() -> None:
    """Compare."""

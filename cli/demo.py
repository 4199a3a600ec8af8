"""`proxy-rlhf demo`: retrain a small proxy from the shipped data while a server picks up every version."""


def demo() -> int:
    """Retrain a small proxy from the shipped data, live, in minutes on a laptop's CPU."""
    from trainer.demo import main

    return main()

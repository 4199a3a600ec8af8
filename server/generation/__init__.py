"""From a checked body to the engine and back: what every endpoint that generates has in common."""

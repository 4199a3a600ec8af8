"""Systems side by side on held-out prompts, judged by models that did not train them."""

"""What the JSON of requests and responses may be. What the numbers mean is said in `proxy_model`."""

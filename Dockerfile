# One image for every process. The build arguments choose what is in it and what it runs:
#   docker build --build-arg GROUP=edge      --build-arg FUNCTION=edge       -t natterjack/edge .
#   docker build --build-arg GROUP=functions --build-arg FUNCTION=send       -t natterjack/send .
#   docker build --build-arg GROUP=edge      --build-arg FUNCTION=bridge     -t natterjack/bridge .
#   docker build --build-arg GROUP=functions --build-arg FUNCTION=migrations -t natterjack/migrations .
# BASE_IMAGE is anything with Python 3.11 or newer as `python3` and its venv module. Images of one group share all
# layers, and the same sources give the same layers wherever they are built. Behind a mirror or a proxy that inspects
# TLS: --secret id=pip,src=pip.conf --secret id=ca,src=ca.pem
ARG BASE_IMAGE=docker.io/library/python:3.12-slim

FROM ${BASE_IMAGE} AS packages
# Which lock of requirements/: edge, functions or media.
ARG GROUP=functions
COPY requirements/${GROUP}.txt deploy/sbom.py /
# Everything comes as a wheel (no compiler here), and only with the hashes of the lock. pip itself stays behind. Nothing
# depends on when it was built: byte code names its source by hash, and all times are the same.
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \
    --mount=type=secret,id=ca,target=/run/ca.pem \
    if [ -f /run/ca.pem ]; then export PIP_CERT=/run/ca.pem; fi \
    && python3 -m venv /venv \
    && /venv/bin/python3 -m pip --disable-pip-version-check install --no-cache-dir --no-compile --quiet \
       --only-binary :all: --no-deps --require-hashes -r /${GROUP}.txt \
    && /venv/bin/python3 -m pip --disable-pip-version-check uninstall --quiet --yes setuptools pip \
    && /venv/bin/python3 /sbom.py "${GROUP}" >/venv/sbom.cdx.json \
    && find /venv -name __pycache__ -prune -exec rm -rf {} + \
    && /venv/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /venv/lib \
    && mkdir /image \
    && mv /venv /image \
    && find /image -exec touch --no-dereference --date=@0 {} +

FROM ${BASE_IMAGE} AS code
COPY . /app
RUN chmod -R a+rX,go-w /app \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /app \
    && mkdir /image \
    && mv /app /image \
    && find /image -exec touch --no-dereference --date=@0 {} +

FROM ${BASE_IMAGE}
COPY --from=packages /image /
COPY --from=code /image /
WORKDIR /app
# Nothing is written but to /tmp, and no user name is needed: any uid will do.
ENV PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    IM_EDGE_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080
# What runs by default: `edge`, `migrations`, or the names of functions.
ARG FUNCTION=send
ENV IM_RUN=${FUNCTION}
ENTRYPOINT ["/app/deploy/run"]
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["/app/deploy/run", "--check"]

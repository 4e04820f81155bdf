# syntax=docker/dockerfile:1
# The gateway as an image, in two sizes:
#
#   docker build --tag llm-manifold .                          for vendors' models
#   docker build --tag llm-manifold:local --target local .     with torch, for models on the box, too
#
# All that changes is in the volume /data: configuration, hashes of keys, caches, models. docs/deployment.md says how it is run.
ARG PYTHON=3.11-slim-bookworm

FROM python:${PYTHON} AS build
# More of them with --build-arg EXTRAS=gateway,redis,bedrock
ARG EXTRAS=gateway,redis
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
# hadolint ignore=DL3013,DL3042 # constraints.txt has the versions; the cache is a mount, not in the image
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint constraints.txt hatchling \
    && pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/manifold \
    && pip --python /opt/manifold/bin/python install --constraint constraints.txt "$(echo /wheels/*.whl)[$EXTRAS]"

FROM build AS build-local
# CPU builds of torch; https://pypi.org/simple has those for CUDA, 5 GB larger.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013,DL3042 # as above
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/manifold/bin/python install --constraint constraints.txt --extra-index-url "$TORCH_INDEX" \
    "$(echo /wheels/*.whl)[local]"

FROM python:${PYTHON} AS runtime
LABEL org.opencontainers.image.title="llm-manifold" \
      org.opencontainers.image.description="One pooled, limited, cached and observed gateway to language models" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin manifold \
    && install --directory --owner manifold --group manifold --mode 0700 /data
COPY deploy/healthcheck.py /opt/healthcheck.py
ENV PATH=/opt/manifold/bin:$PATH \
    HOME=/data \
    HOST=0.0.0.0 \
    PORT=8000 \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /data
VOLUME /data
EXPOSE 8000
USER 10001:10001
# Calls that run have gateway.drain seconds (30) then: docker stop -t 45
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["python", "-I", "/opt/healthcheck.py"]
ENTRYPOINT ["manifold"]
# Where the configuration has no keys, the first start makes one: it is printed once, and its hash kept in /data/llm.yaml.
CMD ["serve", "--first-key", "admin"]

FROM runtime AS local
COPY --from=build-local /opt/manifold /opt/manifold

FROM runtime AS gateway
COPY --from=build /opt/manifold /opt/manifold

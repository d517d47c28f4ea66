# Softstep's image: the locked packages, the service and its compiled kernels in one virtual environment, and no tools. The
# packages are those of the extras `postgres` and `grpc` too: a log in PostgreSQL, and gRPC on the port SOFTSTEP_GRPC_PORT.
# It listens on every address, so it starts only with API keys or SOFTSTEP_OPEN=true: else it exits with 2.
# SOFTSTEP_MODELS and SOFTSTEP_DATA keep their defaults, `models` and `data`, which from / are /models and /data.

# The digest fixes the base; docs/deployment.md says how to renew it.
FROM python:3.13-slim@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b AS base

FROM base AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The environment has no pip of its own; the base image's pip installs into it.
RUN python -m venv --without-pip /opt/softstep
WORKDIR /build
COPY requirements.lock ./
RUN pip --python /opt/softstep/bin/python install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE softstep.py ./
COPY service service
# Remove the build tools, and the tests of packages, which nothing imports.
RUN pip --python /opt/softstep/bin/python install --no-deps --no-build-isolation . \
 && pip --python /opt/softstep/bin/python uninstall --yes editables hatchling pathspec pluggy trove-classifiers \
 && find /opt/softstep/lib -type d -name tests -prune -exec rm -rf {} +
# Compile for every x86-64 baseline; the best one for the processor is chosen at start (service/compiler.py).
RUN if [ "$(uname -m)" = x86_64 ]; then baselines="x86-64-v2 x86-64-v3 x86-64-v4"; fi \
 && /opt/softstep/bin/softstep warm $baselines

FROM base
LABEL org.opencontainers.image.title="Softstep" \
      org.opencontainers.image.description="Serves softmax-regression models over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0"
# The kernel ignores SIGTERM for the first process of a container until that process handles it. tini does from its first
# moment on, passes signals on, and maps the exit code of a process that SIGTERM ended to 0.
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/softstep /opt/softstep
COPY models /models
RUN install --directory --owner=10001 --group=10001 /data
# All code is compiled, and the root may be read-only: write nothing beside the code.
ENV PATH=/opt/softstep/bin:$PATH PYTHONDONTWRITEBYTECODE=1 SOFTSTEP_HOST=0.0.0.0
WORKDIR /
USER 10001:10001
# HTTP, and gRPC where the files of deploy/ and compose set SOFTSTEP_GRPC_PORT.
EXPOSE 8000 9000
VOLUME /data
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["softstep", "health"]
# SageMaker runs `docker run IMAGE serve`, which is the same as the default.
ENTRYPOINT ["tini", "-e", "143", "--", "softstep"]
CMD ["serve"]

# mailgw as a container: no root, no compiler, no package installer in what runs. It is the compiled
# one; `--build-arg COMPILED=0` makes it of the sources as they are.

FROM python:3.13-slim-bookworm AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1
WORKDIR /build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
# What runs, and what compiles it.
RUN python -m venv /opt/mailgw && python -m venv /opt/compiles
ENV PATH=/opt/mailgw/bin:$PATH

# The packages first: they change seldom, and this layer is kept while they do not.
COPY requirements.lock requirements-build.lock ./
# Two packages are published as sources only; they are plain Python and need no compiler.
RUN pip install --require-hashes --only-binary :all: --no-binary dkimpy,pyspf -r requirements.lock \
    && /opt/compiles/bin/pip install --require-hashes --only-binary :all: --no-binary dkimpy,pyspf \
        -r requirements.lock -r requirements-build.lock

COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src ./src
ARG COMPILED=1
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=$COMPILED \
        /opt/compiles/bin/pip wheel --no-build-isolation --no-deps --wheel-dir made . \
    && pip install --no-deps made/*.whl \
    && pip check \
    # What only builds does not run.
    && pip uninstall --yes hatchling packaging pathspec pluggy tomlkit trove-classifiers \
    && pip uninstall --yes pip


FROM python:3.13-slim-bookworm

LABEL org.opencontainers.image.title="mailgw" \
      org.opencontainers.image.description="Receives mail over SMTP and puts it into RabbitMQ, one JSON document per recipient." \
      org.opencontainers.image.licenses="Apache-2.0"

# Fixed numbers, so that a volume belongs to the same user on every host.
RUN groupadd --gid 10025 mailgw \
    && useradd --uid 10025 --gid mailgw --no-create-home --home-dir /var/lib/mailgw --shell /usr/sbin/nologin mailgw \
    && install --directory --owner mailgw --group mailgw --mode 0700 /var/lib/mailgw

COPY --from=build /opt/mailgw /opt/mailgw

# 2525, because ports below 1024 are root's; publish it as 25. Large mail under way is written to
# the volume: /tmp is memory where the root is read-only.
ENV PATH=/opt/mailgw/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TMPDIR=/var/lib/mailgw \
    MAILGW_SMTP_PORT=2525 \
    MAILGW_QUEUE_STORE=/var/lib/mailgw/queue.sqlite

USER 10025:10025
WORKDIR /var/lib/mailgw
VOLUME /var/lib/mailgw
EXPOSE 2525
STOPSIGNAL SIGTERM

# A mail client's first and last word: smtplib wants the 220, then says QUIT.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, re, smtplib; smtplib.SMTP('127.0.0.1', int(re.split('[-,; ]', os.environ['MAILGW_SMTP_PORT'])[0]), timeout=8).quit()"]

ENTRYPOINT ["mailgw"]
CMD ["serve"]

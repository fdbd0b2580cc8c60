# One image for the operator, the JobManager and the TaskManager: `flinkjob operator|jobmanager|taskmanager`.
#
# BASE needs python3 (3.11 or newer) with the venv module. Where `wheels/` holds the files that the two locks name,
# nothing is fetched:  pip download --require-hashes -r requirements-image.lock -d wheels  (and -r requirements-build.lock).
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The brackets make the directory optional.
COPY requirements-image.lock requirements-build.lock wheel[s] /wheels/
# pip and the build backend live in an environment of their own, so that the one that is shipped has neither.
RUN if ls /wheels/*.whl >/dev/null 2>&1; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels; fi \
    && python3 -m venv /build \
    && python3 -m venv --without-pip /opt/flinkjob/venv \
    && /build/bin/pip install --quiet --require-hashes --requirement /wheels/requirements-build.lock \
    && /build/bin/pip --python /opt/flinkjob/venv/bin/python install --quiet --no-compile --require-hashes \
        --requirement /wheels/requirements-image.lock
COPY pyproject.toml README.md LICENSE ./
COPY operator/flinkjob operator/flinkjob
# The root file system is read-only when the image runs, so what is not compiled here is compiled at every start.
# Left out: the 30 MB of kubernetes' synchronous client, which nothing imports.
RUN /build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /dist . \
    && /build/bin/pip --python /opt/flinkjob/venv/bin/python install --quiet --no-compile --no-deps /dist/*.whl \
    && /opt/flinkjob/venv/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        -x '/kubernetes/client/(api|models)/' /opt/flinkjob/venv/lib \
    && mkdir /opt/flinkjob/usrlib

FROM ${BASE}
LABEL org.opencontainers.image.title="flinkjob" \
      org.opencontainers.image.description="Operator, JobManager and TaskManager of FlinkJobs" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN echo 'flinkjob:x:10001:10001:flinkjob:/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'flinkjob:x:10001:' >> /etc/group
COPY --from=build /opt/flinkjob /opt/flinkjob
ENV PATH=/opt/flinkjob/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/flinkjob/usrlib
USER 10001:10001
ENTRYPOINT ["flinkjob"]

# One image for every machine: shards and features on Ray, training, MLflow's server. From the top of the repository:
#
#   docker build --file infra/container/sed.Dockerfile --target cuda --tag registry.example.com/sed:0.1.0 .
#   docker run --rm --gpus all --shm-size 16g --volume "$PWD/data:/data" registry.example.com/sed:0.1.0 \
#     python jobs/train_sed.py rrdb_sed_p_x4 --data.shards /data/shards --run-dir /data/runs/1
#
# torch from Python's index brings CUDA's libraries, so a GPU node needs a driver and NVIDIA's container toolkit only.
# The target cpu has no DeepSpeed and no compiler; of its size most is torch. PIP_ARGUMENTS chooses another index.
ARG PYTHON=3.11.13-slim-bookworm

FROM python:${PYTHON} AS packages
ARG EXTRAS=s3,server
ARG PIP_ARGUMENTS=
WORKDIR /app
COPY pyproject.toml constraints.txt README.md sed_trainer.py ./
COPY jobs jobs
COPY pipeline pipeline
COPY shards shards
RUN python -m venv /opt/sed \
    && /opt/sed/bin/pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGUMENTS} ".[${EXTRAS}]"

FROM packages AS packages-cuda
ARG PIP_ARGUMENTS=
RUN /opt/sed/bin/pip install --no-cache-dir --constraint constraints.txt ${PIP_ARGUMENTS} ".[deepspeed]"

FROM python:${PYTHON} AS cpu
# Not root: what a job writes belongs to this user, and a mounted folder has to let it write.
RUN useradd --create-home --uid 1000 sed
COPY --from=packages /opt/sed /opt/sed
WORKDIR /app
COPY jobs jobs
COPY pipeline pipeline
COPY shards shards
COPY infra infra
ENV PATH=/opt/sed/bin:$PATH PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0 MLFLOW_DISABLE_TELEMETRY=true
USER 1000
CMD ["python", "jobs/train_sed.py", "--help"]

FROM cpu AS cuda
USER root
# Compiled regions and DeepSpeed's operators are built where they first run.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
COPY --from=packages-cuda /opt/sed /opt/sed
USER 1000

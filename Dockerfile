# The command line of semiseg. For the processor by default; with a GPU:
#   docker build --build-arg TORCH_INDEX=https://pypi.org/simple .     (PyPI's Linux wheels of torch hold CUDA)
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/semiseg
ENV PATH=/opt/semiseg/bin:$PATH
WORKDIR /src
# the versions that were tested together
COPY constraints.txt ./
# torch first, in a layer of its own: it is large and seldom changes
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" --extra-index-url https://pypi.org/simple --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --constraint constraints.txt ".[demo,hdf5,tensorboard]"

FROM python:${PYTHON}-slim-bookworm
COPY --from=build /opt/semiseg /opt/semiseg
# nobody else may write to the cache: prepared scans are taken from there
RUN useradd --create-home --uid 1000 semiseg \
    && mkdir /data /runs \
    && mkdir --mode=0700 /cache \
    && chown 1000 /data /runs /cache
ENV PATH=/opt/semiseg/bin:$PATH \
    SEMISEG_CACHE=/cache \
    MPLCONFIGDIR=/cache/matplotlib \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /runs
VOLUME ["/data", "/runs", "/cache"]
ENTRYPOINT ["semiseg"]
CMD ["--help"]

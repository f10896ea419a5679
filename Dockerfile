# rba-bench with voices, trainer and codecs; for CPUs by default, for GPUs of NVIDIA by argument:
#
#     docker build -t rba-bench .
#     docker build -t rba-bench:cuda --build-arg TORCH=cu128 .
#     docker run --rm -v "$PWD:/work" rba-bench quickstart
#     docker run --rm --user "$(id -u):$(id -g)" -e HOME=/work -v "$PWD:/work" rba-bench quickstart   # not as user 1000
#     docker run --rm --gpus all -v "$PWD:/work" -v "$HOME/.cache/huggingface:/home/rba/.cache/huggingface" rba-bench:cuda doctor
#
# BASE is any image with Python 3.11 or newer as `python` (the pinned versions are tested with 3.11); the wheels of torch
# bring their own CUDA, so only a driver and the NVIDIA container toolkit are needed beside it.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# cpu, cu126, cu128, rocm6.4 ...: a build of the torch in constraints.txt; https://pytorch.org/get-started says which exist
ARG TORCH=cpu
ARG EXTRAS=tts,train,codecs

# The extras tts and codecs bring espeak-ng and parts of FFmpeg, which are GPL: whoever passes the image on passes them on.
LABEL org.opencontainers.image.title="rba-bench" \
      org.opencontainers.image.description="Benchmark harness and alignment trainer for speech language models" \
      org.opencontainers.image.licenses="Apache-2.0 AND GPL-3.0-or-later"

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

WORKDIR /src
COPY constraints.txt ./
# torch first: it is by far the largest layer, and stays when only the code changes
# (uv knows where the builds of torch lie, by their names)
RUN python -m pip install --constraint constraints.txt pip uv \
 && uv pip install --system --no-cache --torch-backend "${TORCH}" --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY tasks tasks
COPY recipes recipes
COPY rba_bench rba_bench
RUN python -m pip install --constraint constraints.txt ".[${EXTRAS}]" \
 && rm -rf /src/* \
 && useradd --create-home --uid 1000 rba \
 && mkdir /work \
 && chown rba:rba /work

USER rba
WORKDIR /work
# An image whose command cannot start is not built.
RUN rba-bench --version && rba-bench tasks list > /dev/null

ENTRYPOINT ["rba-bench"]
CMD ["--help"]

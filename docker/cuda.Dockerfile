# dip on NVIDIA GPUs. The build needs no toolkit: kernels are compiled when a run begins, by the NVRTC of the second image.
#   docker build -f docker/cuda.Dockerfile -t dip-cuda .
# With `pipeline.device = "cuda"` in run.toml (the volume keeps compiled kernels):
#   docker run --rm --gpus all -v "$PWD:/work" -v dip-kernels:/home/dip/.cache dip-cuda train run.toml
FROM rust:1.92-slim-trixie AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /dip
COPY . .
RUN cargo install --locked --path . --root /out --features cuda,audio,parquet,remote

# The headers of the runtime are needed to compile kernels: the image with development files has them.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates ffmpeg && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/dip /usr/local/bin/dip
RUN useradd --create-home dip && mkdir -p /home/dip/.cache && chown dip /home/dip/.cache
USER dip
WORKDIR /work
ENTRYPOINT ["dip"]

FROM python:3.11.14-slim-bookworm AS files
WORKDIR /app
COPY pyproject.toml constraints.txt constraints-vllm.txt README.md LICENSE ./
COPY evomerge_optuna ./evomerge_optuna
COPY studies ./studies
RUN useradd --uid 1000 --create-home evomerge && mkdir /data && chown evomerge /data
ENTRYPOINT ["evomerge-optuna"]

# With vLLM for CUDA, an older transformers beside it, and the compiler that its kernels are made with
# when it starts: docker build --target vllm
FROM files AS vllm
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --constraint constraints-vllm.txt \
    '.[grpc,lm-eval,postgres,s3,vision,vllm]'
USER 1000

FROM files
# torch's build, cpu or cuda; the one for CUDA is several gigabytes larger.
ARG TORCH=cpu
RUN case "$TORCH" in \
      cpu) set -- --extra-index-url https://download.pytorch.org/whl/cpu ;; \
      cuda) set -- ;; \
      *) echo "TORCH is cpu or cuda, not '$TORCH'" >&2; exit 2 ;; \
    esac; \
    pip install --no-cache-dir --constraint constraints.txt "$@" \
    '.[grpc,images,lm-eval,postgres,s3,vision]'
USER 1000

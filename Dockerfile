FROM python:3.11.14-slim-bookworm

# The CPU build of torch; https://pypi.org/simple has the one for CUDA, several gigabytes larger.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY evomerge_optuna ./evomerge_optuna
COPY studies ./studies
RUN pip install --no-cache-dir --constraint constraints.txt \
    --extra-index-url "$TORCH_INDEX" '.[grpc,lm-eval,postgres,s3,vision]' \
    && useradd --uid 1000 --create-home evomerge && mkdir /data && chown evomerge /data
USER 1000
ENTRYPOINT ["evomerge-optuna"]
